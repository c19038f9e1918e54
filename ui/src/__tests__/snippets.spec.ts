import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import { promisify } from 'node:util';
import { stringify } from '../json';
import { endpointCall, fenced, quote, SNIPPETS } from '../snippets';
import type { Values } from '../tokens';

const run = promisify(execFile);
const NASTY = [
  "O'Hara",
  '$HOME `id` $(id) "q" \\ \\n !h',
  'a\nb\tc',
  'é 漢 😀 \u2028',
  'EOF',
  '--x',
  '@/etc/passwd',
  '%s'
];
const PARAMETERS: Values = { list: NASTY, n: 3, t: true, z: null, d: { "k'": [1.5, 12345678901234567890n] } };
const RUNNERS: { [kind: string]: string[] } = {
  curl: ['bash', '-c'],
  JavaScript: ['node', '--input-type=module', '-e']
};

// Each call is run here, not read. The other languages are run in tests/ui, against a notebook.
it.each(Object.keys(RUNNERS))('%s sends values as they are', async kind => {
  let got = { auth: '', text: '' };
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', data => (text += data));
    request.on('end', () => {
      got = { auth: request.headers.authorization!, text };
      response.end('{}');
    });
  }).listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  const base = `http://127.0.0.1:${(server.address() as { port: number }).port}/`;
  const call = { url: `${base}a%20b`, server: base, path: 'a b', parameters: PARAMETERS };
  const environment = { env: { ...process.env, JUPYTER_TOKEN: 'tok' } };
  const [program, ...args] = RUNNERS[kind];
  await run(program, [...args, SNIPPETS[kind].write(call)], environment);
  expect(got.auth).toBe('token tok');
  expect(got.text).toBe(stringify({ parameters: PARAMETERS }));
  await run(
    program,
    [...args, SNIPPETS[kind].write({ ...call, parameters: {}, kernel: "it's R" })],
    environment
  );
  expect(got.text).toBe(stringify({ kernel_name: "it's R" }));
  await run(program, [...args, SNIPPETS[kind].write({ ...call, token: "it's $HOME" })], environment);
  expect(got.auth).toBe("token it's $HOME");
  server.close();
});

it.each(Object.keys(SNIPPETS))('%s holds the token only where that is wanted', kind => {
  const call = { url: 'http://h/a', server: 'http://h/', path: '-a.ipynb', parameters: {} };
  expect(SNIPPETS[kind].write(call)).toContain(kind === 'jupyter nbexec' ? '--server' : 'JUPYTER_TOKEN');
  expect(SNIPPETS[kind].write({ ...call, token: 'secret' })).toContain('secret');
});

it('gives the command line strings that it takes for strings', () => {
  const parameters = { word: 'EU west', yes: 'true', number: '5', dash: '-x', real: 5 };
  const call = { url: '', server: 'http://h/', path: 'a.ipynb', parameters, kernel: 'ir' };
  const text = SNIPPETS['jupyter nbexec'].write(call);
  for (const line of [
    "-p word 'EU west'",
    `-p yes '"true"'`,
    `-p number '"5"'`,
    `-p dash '"-x"'`,
    '-p real 5',
    '--kernel ir',
    '-- a.ipynb'
  ]) {
    expect(text).toContain(line);
  }
});

it('writes the call of an endpoint', () => {
  expect(endpointCall("http://h/a.ipynb/it's", 'HEAD')).toContain("--head 'http://h/a.ipynb/it'\\''s'");
  expect(endpointCall('http://h/a.ipynb/x', 'POST')).toContain("-d '{}'");
  expect(endpointCall('http://h/a.ipynb/x', 'PUT')).toContain('-X PUT');
  expect(endpointCall('http://h/a.ipynb/x', 'GET')).not.toContain('-X');
  expect(quote("it's")).toBe(`'it'\\''s'`);
});

it('shows a call as code, whatever is in it', () => {
  expect(fenced('x', 'bash')).toBe('``````bash\nx\n``````');
  const hostile = "'a\n```````\n![x](/api/nbexec/a.ipynb/x)'";
  expect(fenced(hostile, 'bash')).toBe(`\`\`\`\`\`\`\`\`bash\n${hostile}\n\`\`\`\`\`\`\`\``);
});
