import { RenderMimeRegistry, standardRendererFactories } from '@jupyterlab/rendermime';
import { printable } from '../nbformat';
import { MAX_TEXT, RunOutputs } from '../outputs';
import { RunModel } from '../run';
import { attach } from './cleanup';
import { aRun, FakeServer, RUNNING, trans, until } from './fakes';

const AT = { cell: 3, cell_id: 'c' };

function drawn(isTrusted = true) {
  const model = new RunModel({ api: new FakeServer().api, run: aRun(RUNNING), isTrusted });
  const rendermime = new RenderMimeRegistry({ initialFactories: standardRendererFactories });
  const widget = new RunOutputs(model, { rendermime, maxOutputs: 5, onGo: null, trans });
  attach(widget);
  const put = (data: object) => model.apply({ id: 1, type: 'output', data: { ...AT, ...data } as any });
  return { model, widget, put };
}

it('draws outputs as they come, and takes them away', async () => {
  const { model, widget, put } = drawn();
  model.apply({ id: 1, type: 'cell', data: { ...AT, state: 'started', execution_count: null } });
  await until(() => widget.node.textContent!.includes('running…'));
  put({ output_type: 'stream', name: 'stdout', text: 'one' });
  await until(() => widget.node.textContent!.includes('one'));
  put({ output_type: 'display_data', data: { 'text/plain': 'old' }, metadata: {}, display_id: 'd' });
  model.apply({
    id: 2,
    type: 'update',
    data: { ...AT, display_id: 'd', data: { 'text/plain': 'new' }, metadata: {} } as any
  });
  await until(() => widget.node.textContent!.includes('new'));
  model.apply({ id: 3, type: 'clear', data: { ...AT, wait: false } });
  expect(widget.node.textContent).not.toContain('one');
});

it('can be scrolled by keys', async () => {
  const { widget, put } = drawn();
  put({ output_type: 'stream', name: 'stdout', text: 'printed' });
  put({ output_type: 'execute_result', data: { 'text/plain': 'value' }, metadata: {}, execution_count: 1 });
  await until(() => widget.node.querySelectorAll('pre[tabindex="0"]').length === 2);
});

it('draws no more text than anybody reads', async () => {
  const { widget, put } = drawn();
  put({ output_type: 'stream', name: 'stdout', text: 'x'.repeat(2 * MAX_TEXT) });
  put({ output_type: 'stream', name: 'stdout', text: 'y' });
  await until(() => widget.node.querySelector('pre'));
  expect(widget.node.querySelector('pre')!.textContent!.length).toBeLessThanOrEqual(MAX_TEXT);
  expect(widget.node.textContent).toContain('The rest of the text');
});

it('lets no script of a stranger run', async () => {
  const { widget, put } = drawn(false);
  const html = '<b>bold</b><img src="x" onerror="window.hacked = true"><script>window.hacked = true</script>';
  put({ output_type: 'display_data', data: { 'text/html': html }, metadata: {} });
  await until(() => widget.node.querySelector('b'));
  expect(widget.node.querySelector('script')).toBeNull();
  expect(widget.node.innerHTML).not.toContain('onerror');
});

it('writes JSON with large integers as text, since renderers do not know them', () => {
  const n = 12345678901234567890n;
  const draw = (data: any) => printable({ output_type: 'display_data', data, metadata: {} } as any).data;
  expect(draw({ 'application/json': { n }, 'text/plain': '<JSON>' })).toEqual({
    'text/plain': '{\n  "n": 12345678901234567890\n}'
  });
  expect(draw({ 'application/x+json': [n], 'application/json': [1] })).toEqual({
    'application/x+json': [Number(n)],
    'application/json': [1]
  });
  const plain = { 'application/json': { n: '12345678901234567890' } };
  expect(draw(plain)).toBe(plain);
});
