import type { Timestamp } from './resource.js';

/** Something that a controller wants people to know about an object. */
export interface NoticeInput {
  /**
   * What it is about, in one word for programs.
   * @pattern ^[A-Za-z][A-Za-z0-9]*$ must be one word in CamelCase
   * @maxLength 128 must have at most 128 characters
   */
  reason: string;
  /**
   * The same in words for people.
   * @minLength 1 must not be empty
   * @maxLength 4096 must have at most 4096 characters
   */
  message: string;
}

/** A notice as it is kept: for 24 hours after it was last recorded, of an object the latest 250. */
export interface Notice extends NoticeInput {
  /** Who recorded it: the name of a controller, if it was one. */
  actor: string;
  /**
   * How often the same was recorded.
   * @isInt
   */
  count: number;
  /** When it was recorded first. */
  first: Timestamp;
  /** When it was recorded last. */
  last: Timestamp;
}

/** All that is kept about an object, the latest notice first. */
export interface NoticeList {
  items: Notice[];
}
