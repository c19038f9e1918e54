import { hasLarge, stringify } from './json';
import type { Json, Values } from './tokens';

/** A call that can be pasted: where to, with what. */
export interface ICall {
  url: string;
  /** The URL of the server, and the notebook's path there. */
  server: string;
  path: string;
  parameters: Values;
  /** The kernel to use instead of the notebook's own. */
  kernel?: string | null;
  /** The token itself; without it, the call reads `JUPYTER_TOKEN`. */
  token?: string;
}

export interface ISnippet {
  /** The language, for highlighting. */
  fence: string;
  write: (call: ICall) => string;
}

/** The calls that are offered, by the name that is shown. */
export const SNIPPETS: { readonly [name: string]: ISnippet } = {
  curl: { fence: 'bash', write: curl },
  Python: { fence: 'python', write: python },
  JavaScript: { fence: 'javascript', write: javascript },
  HTTPie: { fence: 'bash', write: httpie },
  'jupyter nbexec': { fence: 'bash', write: command }
};

/** The call of cells that are an endpoint. */
export function endpointCall(url: string, method: string): string {
  const how: { [method: string]: string[] } = { GET: [], HEAD: ['--head'] };
  const sent = ['POST', 'PUT', 'PATCH'].includes(method)
    ? ['-H', "'Content-Type: application/json'", '-d', "'{}'"]
    : [];
  return ['curl', ...(how[method] ?? ['-X', quote(method)]), quote(url), '-H', header({}), ...sent].join(' ');
}

/** Markdown that shows a text as code, whatever the text is: its fence is longer than any in there. */
export function fenced(text: string, language: string): string {
  const longest = Math.max(0, ...(text.match(/`+/g) ?? []).map(run => run.length));
  const fence = '`'.repeat(Math.max(6, longest + 1));
  return `${fence}${language}\n${text}\n${fence}`;
}

function body(call: ICall): Json {
  return {
    ...(Object.keys(call.parameters).length ? { parameters: call.parameters } : {}),
    ...(call.kernel ? { kernel_name: call.kernel } : {})
  };
}

function curl(call: ICall): string {
  return [
    `curl -X POST ${quote(call.url)}`,
    `  -H ${header(call)}`,
    `  -H 'Content-Type: application/json'`,
    `  -d ${quote(stringify(body(call)))}`
  ].join(' \\\n');
}

function httpie(call: ICall): string {
  return [
    `http --ignore-stdin POST ${quote(call.url)}`,
    `  ${header(call).replace('Authorization: ', 'Authorization:')}`,
    `  --raw ${quote(stringify(body(call)))}`
  ].join(' \\\n');
}

function command(call: ICall): string {
  const lines = ['jupyter nbexec run'];
  for (const [name, value] of Object.entries(call.parameters)) {
    lines.push(`  -p ${quote(name)} ${quote(argument(value))}`);
  }
  if (call.kernel) {
    lines.push(`  --kernel ${quote(call.kernel)}`);
  }
  lines.push(`  --server ${quote(call.server)}`);
  lines.push(`  -- ${quote(call.path)}`);
  const text = lines.join(' \\\n');
  return call.token === undefined ? text : `NBEXEC_TOKEN=${quote(call.token)} ${text}`;
}

function python(call: ICall): string {
  const token =
    call.token === undefined
      ? '"token " + os.environ["JUPYTER_TOKEN"]'
      : pythonLiteral(`token ${call.token}`);
  return [
    ...(call.token === undefined ? ['import os', ''] : []),
    'import requests',
    '',
    'response = requests.post(',
    `    ${pythonLiteral(call.url)},`,
    `    headers={"Authorization": ${token}},`,
    `    json=${pythonLiteral(body(call), 1)},`,
    ')',
    'print(response.json())'
  ].join('\n');
}

function javascript(call: ICall): string {
  const token =
    call.token === undefined ? '`token ${process.env.JUPYTER_TOKEN}`' : stringify(`token ${call.token}`);
  const text = stringify(body(call), 2).replace(/\n/g, '\n  ');
  return [
    `const response = await fetch(${stringify(call.url)}, {`,
    "  method: 'POST',",
    `  headers: { Authorization: ${token}, 'Content-Type': 'application/json' },`,
    // A literal would change what a number cannot hold.
    `  body: ${hasLarge(call.parameters) ? stringify(stringify(body(call))) : `JSON.stringify(${text})`}`,
    '});',
    'console.log(await response.json());'
  ].join('\n');
}

/** Quote for a POSIX shell: nothing in single quotes means anything, but the single quote. */
export function quote(text: string): string {
  return /^[\w./:=@%+-]+$/.test(text) ? text : `'${text.replace(/'/g, `'\\''`)}'`;
}

function header(call: { token?: string }): string {
  return call.token === undefined
    ? '"Authorization: token $JUPYTER_TOKEN"'
    : quote(`Authorization: token ${call.token}`);
}

/** A value of `-p`: JSON, but for words that can be nothing else than strings. */
function argument(value: Json): string {
  const isWord = typeof value === 'string' && /^[A-Za-z][\w ]*$/.test(value);
  return isWord && !/^(true|false|null)$/.test(value) ? value : stringify(value);
}

function pythonLiteral(value: Json, depth = 0): string {
  if (value === null) {
    return 'None';
  }
  if (typeof value === 'boolean') {
    return value ? 'True' : 'False';
  }
  if (typeof value !== 'object') {
    // A string of JSON is one of Python, too.
    return stringify(value);
  }
  const entries = Array.isArray(value)
    ? value.map(entry => pythonLiteral(entry, depth + 1))
    : Object.entries(value).map(([name, entry]) => `${stringify(name)}: ${pythonLiteral(entry, depth + 1)}`);
  const [open, close] = Array.isArray(value) ? ['[', ']'] : ['{', '}'];
  return `${open}${entries.join(', ')}${close}`;
}
