import { mkdir, readdir, readFile, realpath, symlink } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';

/** What to do when RabbitMQ is not there. */
export const advice =
  'RabbitMQ is needed by the tests that stop a broker: `make test` installs it when it runs as root, else install the package ' +
  'rabbitmq-server. For the other tests AMQP_URL may name a running broker.';

/**
 * The directory that holds RabbitMQ's `plugins`: the one that RABBITMQ_HOME names, else where Debian, RPM and Homebrew put it or
 * beside `rabbitmq-server` in PATH.
 *
 * @throws Error saying how to get it, or that RABBITMQ_HOME holds none: testing another version unnoticed would be worse
 */
export async function findInstallation(): Promise<string> {
  const isHome = async (place: string) => (await readdir(join(place, 'plugins')).catch(() => [])).length > 0;
  const chosen = process.env.RABBITMQ_HOME;
  if (chosen) {
    if (await isHome(chosen)) return chosen;
    throw new Error(`RABBITMQ_HOME is ${chosen}, where there is no folder "plugins" of a RabbitMQ`);
  }
  const debian = '/usr/lib/rabbitmq/lib';
  const versions = await readdir(debian).catch(() => []);
  const places = versions.filter(name => name.startsWith('rabbitmq_server-')).map(name => join(debian, name));
  places.push('/opt/homebrew/opt/rabbitmq', '/usr/local/opt/rabbitmq');
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const script = await realpath(join(directory, 'rabbitmq-server')).catch(() => undefined);
    if (script) places.push(join(dirname(script), '..'));
  }
  for (const place of places) if (await isHome(place)) return place;
  throw new Error(`RabbitMQ is not installed. ${advice}`);
}

/** Links what the application `rabbit` needs of the plugins into a directory. @returns where Erlang is to look */
export async function linkPlugins(from: string, to: string): Promise<string> {
  await mkdir(to);
  const names = await readdir(from);
  const wanted = ['rabbit'];
  for (const application of wanted) {
    const name = names.find(candidate => candidate.replace(/-[\d.]+$/, '') === application);
    if (!name) continue;
    const about = await readFile(join(from, name, 'ebin', `${application}.app`), 'utf8').catch(() => undefined);
    // A package that is one archive (older RabbitMQ) does not show its needs: everything, and slower.
    if (about === undefined) return from;
    await symlink(join(from, name), join(to, name));
    const needs = /\{applications,\s*\[([^\]]*)\]/.exec(about)?.[1]?.match(/\w+/g) ?? [];
    wanted.push(...needs.filter(need => !wanted.includes(need)));
  }
  return (await readdir(to)).length > 0 ? to : from;
}
