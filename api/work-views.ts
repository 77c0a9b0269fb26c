/** Which keys of a controller to show. */
export interface WorkQuery {
  /** Only keys in this state; failing and parked ones are among those that wait. */
  state?: 'queued' | 'claimed' | 'waiting' | 'failing' | 'parked';
  /**
   * @isInt
   * @minimum 1 must be at least 1
   * @maximum 1000 must be at most 1000
   * @default 100
   */
  limit?: number;
  /** The token of the previous page. */
  continue?: string;
}

/** A key of a controller and how it stands. */
export interface WorkItem {
  type: string;
  namespace: string;
  name: string;
  state: 'queued' | 'claimed' | 'waiting';
  reason: string;
  priority: number;
  attempts: number;
  worker: string | null;
  lastError: string | null;
  queuedAt: string;
  /** When it is due; of a claimed key, when it is to run again, if it was enqueued for later meanwhile. */
  notBefore: string | null;
  /** A terminal error: it waits for its object to change. */
  parked: boolean;
}

/** One page of the keys of a controller. */
export interface WorkList {
  items: WorkItem[];
  continue?: string;
}
