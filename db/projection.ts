/** Paths by their first parts; an empty tree takes everything below. */
type Tree = Map<string, Tree>;

/**
 * The part of a jsonb object that paths lead to, as SQL; keys are bound. What is not there is left out, what is below a list is
 * kept whole.
 */
export function projectionSql(object: string, paths: string[][], bind: (value: unknown) => string): string {
  const tree: Tree = new Map();
  // Shorter ones first: a path into a field that is kept whole adds nothing.
  for (const path of [...paths].sort((a, b) => a.length - b.length)) add(tree, path, true);
  return project(object, tree, bind, 0);
}

function add(tree: Tree, [head, ...rest]: string[], isRoot = false): void {
  if (head === undefined || (tree.size === 0 && !isRoot)) return;
  let below = tree.get(head);
  if (!below) {
    // A new branch must not pass for a field that is kept whole.
    below = new Map();
    tree.set(head, below);
    add(below, rest, true);
  } else add(below, rest);
}

function project(value: string, tree: Tree, bind: (value: unknown) => string, depth: number): string {
  const field = `e${depth}`;
  const cases = [...tree]
    .filter(([, below]) => below.size > 0)
    .map(([key, below]) => {
      const into = project(`${field}.value`, below, bind, depth + 1);
      return `when ${field}.key = ${bind(key)} and jsonb_typeof(${field}.value) = 'object' then ${into}`;
    });
  const kept = cases.length === 0 ? `${field}.value` : `case ${cases.join(' ')} else ${field}.value end`;
  return `(select coalesce(jsonb_object_agg(${field}.key, ${kept}), '{}') from jsonb_each(${value}) ${field}
    where ${field}.key = any (${bind([...tree.keys()])}::text[]))`;
}
