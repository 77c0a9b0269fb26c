import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** A fenced block of a Markdown file. */
export interface Block {
  language: string;
  text: string;
  /** Line of the file that it begins at. */
  line: number;
  /** The text of the block `text` that follows before any other block: what must be seen. */
  shown: string | undefined;
}

/** The fenced blocks of a Markdown file, each with what it is to show. */
export function blocksOf(markdown: string): Block[] {
  const found = [...markdown.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(
    ({ 1: language = '', 2: text = '', index }) => ({
      language,
      text: text.trimEnd(),
      line: markdown.slice(0, index).split('\n').length + 1,
    }),
  );
  return found.flatMap((block, at) => {
    const next = found[at + 1];
    return block.language === 'text' ? [] : [{ ...block, shown: next?.language === 'text' ? next.text : undefined }];
  });
}

/**
 * What of the expected lines does not appear in an output, in their order; undefined when all do. Lines follow each other as they
 * do here. `…` stands for anything within a line, and alone on a line for any number of lines.
 */
export function missing(output: string, expected: string): string | undefined {
  const lines = output.replaceAll('\r', '').split('\n');
  let from = 0;
  for (const part of expected.split(/^…$/m)) {
    const wanted = part.split('\n').filter(line => line !== '');
    if (wanted.length === 0) continue;
    const patterns = wanted.map(line => new RegExp(`^${line.split('…').map(escape).join('.*')}$`));
    const at = lines.findIndex(
      (_, start) => start >= from && patterns.every((pattern, i) => pattern.test(lines[start + i]?.trimEnd() ?? '')),
    );
    if (at < 0) return wanted.join('\n');
    from = at + wanted.length;
  }
  return undefined;
}

function escape(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}

/**
 * Runs commands with bash in a terminal of their own, as a reader does: httpie takes another standard input than a terminal for
 * the body of the request.
 * @returns what the terminal showed
 * @throws Error with that, when a command fails
 */
export async function type(commands: string, options: { cwd: string; env: NodeJS.ProcessEnv }): Promise<string> {
  const inside = 'bash -euo pipefail -c "$COMMANDS"';
  const recorder =
    process.platform === 'darwin' ? ['-q', '/dev/null', 'sh', '-c', inside] : ['-qec', inside, '/dev/null'];
  const child = spawn('script', recorder, {
    cwd: options.cwd,
    env: { ...options.env, COMMANDS: commands, PAGER: 'cat', TERM: 'dumb' },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 30_000,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${commands}\nended with code ${code ?? 'none'}:\n${output}`);
  return output;
}
