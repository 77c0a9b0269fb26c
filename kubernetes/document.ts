import { Composer, Lexer, LineCounter, Parser, type CST } from 'yaml';
import { TargetFailure } from './failure.js';

/** A mapping of YAML or JSON whose values are not checked yet. */
export type Mapping = Record<string, unknown>;

/** Largest kubeconfig, in bytes. */
const sizeLimit = 1024 * 1024;

/**
 * Most lexical tokens of a kubeconfig: about 200 contexts, which fill 1 MiB with their certificates. Without it 1 MiB
 * of `[` or `- a` keeps the parser, and with it the whole process, busy for 2 to 4 s; with it for 0.2 s.
 */
const tokenLimit = 25_000;

/**
 * Deepest nesting; a kubeconfig needs about 10. The library recurses and has a guard of its own against the end of the
 * stack, but close to that end V8 cannot compile a regular expression and then aborts the process: `[` 12,000 times
 * did it (yaml 2.9.1, Node 20.20).
 */
const depthLimit = 100;

/**
 * Parses untrusted YAML (so JSON too) into plain data, in bounded time and memory.
 *
 * Of YAML's own means of growing, aliases are limited (a nest of them counts as what it expands to), merge keys and
 * known tags are off. Of a repeated key the last counts, as in kubectl: the library's check compares each key with each
 * other, 0.5 to 0.9 s for the 8,000 keys that the limit of tokens lets through.
 * @throws TargetFailure `KubeconfigInvalid`; says where the fault is and not what stands there
 */
export function parseMapping(text: string): Mapping {
  if (Buffer.byteLength(text) > sizeLimit) throw invalid(`is larger than ${sizeLimit} bytes`);
  const lines = new LineCounter();
  const composer = new Composer({
    logLevel: 'silent',
    merge: false,
    prettyErrors: false, // a pretty error quotes the line, which may hold a token
    resolveKnownTags: false,
    schema: 'core',
    uniqueKeys: false,
  });
  const [document, ...more] = composer.compose(boundedTokens(text, lines), true, text.length);
  const fault = document?.errors[0];
  if (fault) {
    const { line, col } = lines.linePos(fault.pos[0]);
    throw invalid(`is not YAML: ${fault.code} at line ${line}, column ${col}`);
  }
  if (more.length > 0) throw invalid('has more than one YAML document');
  let content: unknown;
  try {
    content = document?.toJS({ maxAliasCount: 100 });
  } catch {
    throw invalid('has too many YAML aliases, or one to a missing anchor');
  }
  if (!isMapping(content)) throw invalid('is not a YAML or JSON mapping');
  return content;
}

/** Whether a parsed value is a mapping and neither list nor scalar. */
export function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The library's own pipeline from lexer to composer, with a look at both limits after each lexical token. */
function* boundedTokens(text: string, lines: LineCounter): Generator<CST.Token, void> {
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  let count = 0;
  for (const lexeme of new Lexer().lex(text)) {
    if (++count > tokenLimit) throw invalid(`has more than ${tokenLimit} YAML tokens`);
    yield* parser.next(lexeme);
    if (parser.stack.length > depthLimit) throw invalid(`is nested more than ${depthLimit} levels deep`);
  }
  yield* parser.end();
}

function invalid(what: string): TargetFailure {
  return new TargetFailure('KubeconfigInvalid', `The kubeconfig ${what}`);
}
