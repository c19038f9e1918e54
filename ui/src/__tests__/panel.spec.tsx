import { CommandRegistry } from '@lumino/commands';
import { MessageLoop } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { RenderMimeRegistry, standardRendererFactories } from '@jupyterlab/rendermime';
import { fireEvent, waitFor, within } from '@testing-library/dom';
import { LazyPanel } from '../lazy';
import { PanelModel } from '../model';
import { CommandIDs } from '../tokens';
import type { IDescription, ISchema, Json } from '../tokens';
import { attach, own } from './cleanup';
import { aDescription, aRun, ENDED, events, FakeServer, json, RUNNING, trans } from './fakes';

const PATH = 'a b.ipynb';

class PlayedHost {
  readonly done: string[] = [];
  readonly hasSettings = true;
  readonly rendermime = new RenderMimeRegistry({ initialFactories: standardRendererFactories });
  parametersCell: boolean | null = null;
  rendermimeOf = () => this.rendermime;
  goToCell = async (_: string, cell: { cell: number | null }) => void this.done.push(`go to ${cell.cell}`);
  lineOf = () => 'x = 1';
  hasParametersCell = () => this.parametersCell;
  canMakeParametersCell = () => true;
  makeParametersCell = async () => void this.done.push('tag');
  kernels = () => [{ name: 'ir', label: 'R' }];
  copy = (text: string) => void this.done.push(text);
  download = (name: string) => void this.done.push(name);
  open = async (path: string) => void this.done.push(`open ${path}`);
  confirmCancel = async (path: string) => this.done.push(`ask ${path}`) < 0;
  saveAs = async () => 'saved.ipynb';
  openSettings = () => void this.done.push('settings');
}

async function mounted(server: FakeServer, values: Partial<IDescription> = {}) {
  server
    .on(
      /^HEAD/,
      new Response(null, { headers: { 'Server-Timing': 'queue;dur=1, kernel;dur=500, run;dur=1500' } })
    )
    .on(/openapi/, json({ info: { version: '0' } }))
    .on(/^GET \/a%20b/, json(aDescription(values)));
  if (!server.answers.some(([pattern]) => pattern.test('GET /runs?'))) {
    server.on(/^GET \/runs\?/, json({ runs: [], cursor: null }));
  }
  const model = own(new PanelModel({ api: server.api }));
  const host = new PlayedHost();
  const commands = new CommandRegistry();
  commands.addCommand(CommandIDs.cancel, { execute: () => model.current!.cancel() });
  commands.addCommand(CommandIDs.run, { execute: () => model.current!.start() });
  commands.addKeyBinding({ command: CommandIDs.run, keys: ['Accel Enter'], selector: 'body' });
  const { rendermime } = host;
  const place = new LazyPanel({ model, host: host as any, commands, rendermime, trans });
  attach(place);
  MessageLoop.sendMessage(place, Widget.Msg.AfterShow);
  const panel = await place.load();
  model.show(PATH, { isDirty: false, save: async () => undefined });
  await waitFor(() => within(place.node).getByRole('button', { name: /^Run/ }));
  return { model, host, place, panel, ui: within(place.node) };
}

const STRING = { type: 'string' };

/** A notebook that declares parameters: of each the schema and the default. */
function declared(given: { [name: string]: [ISchema, Json] }): Pick<IDescription, 'parameters' | 'schema'> {
  const entries = Object.entries(given);
  return {
    parameters: entries.map(([name, [, value]]) => ({
      name,
      type: 'any',
      default: value,
      required: false,
      description: ''
    })),
    schema: {
      type: 'object',
      properties: Object.fromEntries(
        entries.map(([name, [schema, value]]) => [name, { ...schema, default: value }])
      ),
      additionalProperties: false
    }
  };
}

describe('the panel', () => {
  it('shows what a notebook says of its parameters as text', async () => {
    const description = '<img src="/api/nbexec/a.ipynb/x"> ![x](/api/nbexec/a.ipynb/x)';
    const given = declared({ n: [{ type: 'integer', description }, 1] });
    const { ui, place } = await mounted(new FakeServer(), given);
    await ui.findByText(description);
    expect(place.node.querySelector('img')).toBeNull();
  });

  it('makes a form, marks what is changed, and runs it', async () => {
    const server = new FakeServer().on(/^POST/, json(aRun(), 202)).on(
      /events$/,
      events(
        { type: 'status', data: aRun(RUNNING) } as any,
        { type: 'cell', data: { cell: 3, cell_id: 'c', state: 'started', execution_count: null } } as any,
        {
          type: 'output',
          data: { cell: 3, cell_id: 'c', output_type: 'stream', name: 'stdout', text: 'hello' }
        } as any,
        { type: 'cell', data: { cell: 3, cell_id: 'c', state: 'ended', execution_count: 1 } } as any,
        { type: 'end', data: aRun(ENDED) } as any
      )
    );
    const { ui, host, place, panel } = await mounted(server);
    const field = await ui.findByLabelText(/^n/);
    panel.focusFirst();
    await waitFor(() => expect(document.activeElement).toBe(field));
    fireEvent.change(field, { target: { value: '12' } });
    fireEvent.change(ui.getByLabelText(/^who/), { target: { value: 'me' } });
    await waitFor(() => expect(place.node.querySelectorAll('.jp-mod-changed')).toHaveLength(2));
    expect(ui.getByText('how many · ≥ 0')).toBeTruthy();
    await waitFor(() => expect(place.node.querySelector('.jp-NbExec-code')!.textContent).toContain('"n":12'));
    fireEvent.click(ui.getByRole('button', { name: 'Copy' }));
    expect(host.done[0]).toContain('curl -X POST');
    fireEvent.click(ui.getByRole('tab', { name: 'Python' }));
    await waitFor(() =>
      expect(place.node.querySelector('.jp-NbExec-code')!.textContent).toContain('requests.post')
    );
    fireEvent.click(ui.getByRole('button', { name: 'Run' }));
    await ui.findByText('2/2 cells · 2.00 s · 5 B');
    await ui.findByText('waiting 0.00 s · kernel 0.50 s · cells 1.50 s');
    await ui.findByText('hello');
    expect(JSON.parse(server.asked.find(({ method }) => method === 'POST')!.body).parameters).toEqual({
      n: 12,
      who: 'me'
    });
    fireEvent.click(await ui.findByRole('button', { name: /^Cell 4/ }));
    expect(host.done).toContain('go to 3');
    fireEvent.click(ui.getByRole('button', { name: /Save executed/ }));
    server.on(/notebook$/, new Response('{}'));
    await waitFor(() => expect(host.done).toContain('open saved.ipynb'));
    expect(place.node.querySelector('.jp-NbExec-value')!.textContent).toContain('"a": 1');
  });

  it('says at the field what is wrong, and puts the focus there', async () => {
    const errors = [{ parameter: 'who', message: 'is required' }];
    const server = new FakeServer().on(
      /^POST/,
      json({ message: 'x', code: 'invalid_parameter', errors }, 400)
    );
    const { ui } = await mounted(server);
    const field = await ui.findByLabelText(/^who/);
    fireEvent.click(ui.getByRole('button', { name: 'Run' }));
    await ui.findByText('is required');
    await waitFor(() => expect(document.activeElement).toBe(field));
    expect(field.getAttribute('aria-invalid')).toBe('true');
    expect(ui.getByText('Some values were refused.').parentElement!.textContent).toBe(
      'Some values were refused.'
    );
  });

  it('says what is wrong with the item of a list, and with what no field shows', async () => {
    const errors = [
      { parameter: 'tags', message: 'at [1]: must be a string, not 5' },
      { parameter: 'other', message: 'is not a parameter' }
    ];
    const server = new FakeServer().on(
      /^POST/,
      json({ message: 'x', code: 'invalid_parameter', errors }, 400)
    );
    const { ui } = await mounted(server, declared({ tags: [{ type: 'array', items: STRING }, ['a', 'b']] }));
    const first = await ui.findByLabelText('tags, item 1');
    fireEvent.click(ui.getByRole('button', { name: 'Run' }));
    await ui.findByText(errors[0].message);
    expect(ui.getByText('other: is not a parameter')).toBeTruthy();
    const second = ui.getByLabelText('tags, item 2');
    await waitFor(() => expect(document.activeElement).toBe(second));
    expect([first, second].map(item => item.getAttribute('aria-invalid'))).toEqual([null, 'true']);
  });

  it('keeps every line of a text, and the kind of their ends', async () => {
    const { ui, model } = await mounted(
      new FakeServer(),
      declared({ note: [STRING, 'one\r\ntwo'], word: [STRING, 'x'], any: [{}, 'a\nb'] })
    );
    const note = (await ui.findByLabelText('note')) as HTMLTextAreaElement;
    expect(note.rows).toBe(2);
    fireEvent.change(note, { target: { value: 'one\ntwo!' } });
    expect(model.current!.values.note).toBe('one\r\ntwo!');
    fireEvent.change(ui.getByLabelText('any'), { target: { value: 'a\nb\nc' } });
    expect(model.current!.values.any).toBe('a\nb\nc');
    // `false`: what the key would do is not done.
    const word = ui.getByLabelText('word');
    expect(fireEvent.keyDown(word, { key: 'Enter' })).toBe(false);
    expect(fireEvent.keyDown(word, { key: 'Enter', shiftKey: true })).toBe(true);
    expect(fireEvent.keyDown(note, { key: 'Enter' })).toBe(true);
  });

  it('shows what it does not know as that, and sends nothing for it', async () => {
    const sources = { since: 'date.today()', flag: 'not DEBUG', tags: 'list(TAGS)', who: 'me()' };
    const { parameters, schema } = declared({
      n: [{ type: 'integer' }, 1],
      since: [{ type: 'string', format: 'date' }, null],
      flag: [{ type: 'boolean' }, null],
      tags: [{ type: 'array', items: STRING }, null],
      who: [STRING, null]
    });
    const { ui, model } = await mounted(new FakeServer(), {
      parameters: parameters.map(each => ({ ...each, default_source: (sources as any)[each.name] })),
      schema
    });
    const flag = (await ui.findByLabelText('flag')) as HTMLInputElement;
    expect(flag.indeterminate).toBe(true);
    for (const name of ['since', 'flag', 'tags'] as const) {
      expect(ui.getByText(`default: ${sources[name]}`)).toBeTruthy();
    }
    expect(ui.getByPlaceholderText('me()')).toBeTruthy();
    fireEvent.change(ui.getByLabelText('n'), { target: { value: '2' } });
    expect(model.current!.given).toEqual({ n: 2 });
  });

  it('shows values that are not of the kind of their field as they are', async () => {
    const { ui, model, place } = await mounted(
      new FakeServer(),
      declared({
        day: [{ type: 'string', format: 'date' }, '2026-01-01'],
        word: [STRING, 'x'],
        maybe: [{ type: ['string', 'null'] }, 'x'],
        pick: [{ enum: ['a'] }, 'a'],
        nums: [{ type: 'array', items: { type: 'integer' } }, [1]]
      })
    );
    await ui.findByLabelText('day');
    model.current!.setValues({ day: 'tomorrow', word: { a: 1 }, maybe: '', pick: [1], nums: [1] });
    await waitFor(() => expect((ui.getByLabelText(/^day/) as HTMLInputElement).value).toBe('tomorrow'));
    expect((ui.getByLabelText(/^word/) as HTMLInputElement).value).toBe('{"a":1}');
    expect((ui.getByLabelText(/^maybe/) as HTMLInputElement).placeholder).toBe('""');
    expect((ui.getByLabelText(/^pick/) as HTMLSelectElement).selectedOptions[0].text).toBe('[1]');
    fireEvent.click(ui.getByRole('button', { name: 'Add to nums' }));
    const added = (await ui.findByLabelText('nums, item 2')) as HTMLInputElement;
    expect([added.value, (model.current!.values.nums as any)[1]]).toEqual(['', '']);
    await waitFor(() => expect(document.activeElement).toBe(added));
    fireEvent.click(ui.getByRole('button', { name: 'Remove item 2' }));
    await waitFor(() => expect(document.activeElement!.getAttribute('aria-label')).toBe('Add to nums'));
    expect(place.node.textContent).not.toContain('[object');
  });

  it('puts the focus into the form of the notebook that is shown, not of the one before', async () => {
    const { model, panel, place, ui } = await mounted(
      new FakeServer().on(/^GET \/other/, json(aDescription()))
    );
    await ui.findByLabelText(/^who/);
    model.show('other.ipynb', null);
    panel.focusFirst();
    await waitFor(() => expect(document.activeElement?.id).toBe('nbexec:n'));
    const form = place.node.querySelector<HTMLElement>('.jp-NbExec-parameters')!;
    expect(form.dataset.path).toBe('other.ipynb');
    expect(form.contains(document.activeElement)).toBe(true);
  });

  it('takes values as JSON', async () => {
    const { ui, model } = await mounted(new FakeServer());
    await ui.findByLabelText(/^who/);
    fireEvent.click(ui.getByRole('button', { name: 'JSON' }));
    const text = await ui.findByLabelText(/as JSON/);
    fireEvent.change(text, { target: { value: '{"n": 12345678901234567890' } });
    await waitFor(() => expect(text.getAttribute('aria-invalid')).toBe('true'));
    fireEvent.change(text, { target: { value: '[1]' } });
    await ui.findByText(/must be an object/);
    fireEvent.change(text, { target: { value: '{"n": 12345678901234567890}' } });
    expect(model.current!.values.n).toBe(12345678901234567890n);
    fireEvent.click(ui.getByRole('button', { name: 'Form' }));
    const field = (await ui.findByLabelText(/^n/)) as HTMLInputElement;
    expect(field.value).toBe('12345678901234567890');
    fireEvent.click(ui.getByRole('button', { name: 'Reset' }));
    await waitFor(() => expect(field.value).toBe('1'));
  });

  it('runs nothing else than the JSON that is seen', async () => {
    const errors = [{ parameter: 'n', message: 'must be an integer' }];
    const server = new FakeServer().on(
      /^POST/,
      json({ message: 'x', code: 'invalid_parameter', errors }, 400)
    );
    const { ui, model } = await mounted(server);
    const posts = () => server.asked.filter(({ method }) => method === 'POST').length;
    await ui.findByLabelText(/^who/);
    fireEvent.click(ui.getByRole('button', { name: 'JSON' }));
    const text = (await ui.findByLabelText(/as JSON/)) as HTMLTextAreaElement;
    const run = ui.getByRole('button', { name: 'Run' });
    fireEvent.change(text, { target: { value: '{"n": "x"}' } });
    fireEvent.click(run);
    await ui.findByText('n: must be an integer');
    await waitFor(() => expect(document.activeElement).toBe(text));
    fireEvent.change(text, { target: { value: '{"n": ' } });
    await waitFor(() => expect(run.getAttribute('aria-disabled')).toBe('true'));
    run.focus();
    fireEvent.click(run);
    await waitFor(() => expect(document.activeElement).toBe(text));
    fireEvent.click(ui.getByRole('button', { name: 'Form' }));
    expect(text.isConnected && text.value).toBe('{"n": ');
    expect(posts()).toBe(1);
    fireEvent.click(ui.getByRole('button', { name: 'Reset' }));
    await waitFor(() => expect(text.value).toBe('{}'));
    model.current!.takeValues(aRun({ parameters: { n: 7 } }));
    await waitFor(() => expect(JSON.parse(text.value)).toEqual({ n: 7 }));
  });

  it('keeps the focus on a button that cannot be pressed for the moment', async () => {
    const server = new FakeServer()
      .on(/^POST/, json(aRun(), 202))
      .on(/events$/, () => new Promise(() => undefined));
    const { ui, model } = await mounted(server);
    const run = ui.getByRole('button', { name: 'Run' });
    await waitFor(() => expect(run.hasAttribute('aria-disabled')).toBe(false));
    run.focus();
    fireEvent.click(run);
    await waitFor(() => expect(run.getAttribute('aria-disabled')).toBe('true'));
    fireEvent.click(run);
    await waitFor(() => expect(model.current!.run).not.toBeNull());
    expect(document.activeElement).toBe(run);
    fireEvent.click(run);
    expect(server.asked.filter(({ method }) => method === 'POST')).toHaveLength(1);
  });

  it('asks before a run is deleted that is under way, where that is wanted', async () => {
    const server = new FakeServer()
      .on(/^GET \/runs\?/, json({ runs: [aRun(RUNNING)], cursor: null }))
      .on(/events$/, () => new Promise(() => undefined));
    const { ui, model, host } = await mounted(server);
    model.settings = { ...model.settings, confirmCancel: true };
    const more = await ui.findByRole('button', { name: /^More about/ });
    // Upwards from the first of the menu: to delete it, and to cancel it.
    for (const steps of [1, 2]) {
      const count = host.done.length;
      more.focus();
      fireEvent.click(more);
      const menu = await waitFor(() => document.querySelector('.lm-Menu')!);
      for (let step = 0; step < steps; step += 1) {
        fireEvent.keyDown(menu, { keyCode: 38 });
      }
      fireEvent.keyDown(menu, { keyCode: 13 });
      await waitFor(() => expect(host.done).toHaveLength(count + 1));
      await waitFor(() => expect(document.activeElement).toBe(more));
    }
    expect(host.done).toEqual([`ask ${PATH}`, `ask ${PATH}`]);
    expect(server.asked.filter(({ method }) => method !== 'GET')).toEqual([]);
  });

  it('has a field for every kind of parameter', async () => {
    const properties = {
      choice: { enum: ['a', 'b'] },
      flag: { type: 'boolean' },
      tags: { type: 'array', items: { type: 'string' } },
      options: { type: 'object' },
      maybe: { type: ['integer', 'null'] },
      day: { type: 'string', format: 'date' }
    };
    const given = {
      choice: 'a',
      flag: true,
      tags: ['x', 'y'],
      options: { k: 1 },
      maybe: null,
      day: '2026-01-01'
    };
    const parameters = Object.entries(given).map(([name, value]) => ({
      name,
      type: 'any',
      default: value as any,
      required: false,
      description: ''
    }));
    const { ui, model } = await mounted(new FakeServer(), {
      parameters,
      schema: { type: 'object', properties: properties as any, additionalProperties: false }
    });
    const values = () => model.current!.values as any;
    fireEvent.change(await ui.findByLabelText('choice'), { target: { value: '1' } });
    expect(values().choice).toBe('b');
    fireEvent.click(ui.getByLabelText('flag'));
    expect(values().flag).toBe(false);
    fireEvent.change(ui.getByLabelText('options'), { target: { value: '{"k": 2}' } });
    expect(values().options).toEqual({ k: 2 });
    fireEvent.change(ui.getByLabelText('maybe'), { target: { value: '5' } });
    expect(values().maybe).toBe(5);
    fireEvent.change(ui.getByLabelText(/^maybe/), { target: { value: '' } });
    expect(values().maybe).toBeNull();
    fireEvent.click(ui.getByRole('button', { name: 'Move item 1 down' }));
    await waitFor(() => expect(values().tags).toEqual(['y', 'x']));
    await waitFor(() => expect(document.activeElement!.getAttribute('aria-label')).toBe('Move item 2 down'));
    fireEvent.click(ui.getByRole('button', { name: 'Remove item 2' }));
    await waitFor(() => expect(values().tags).toEqual(['y']));
    fireEvent.click(ui.getByRole('button', { name: 'Add to tags' }));
    await waitFor(() => expect(values().tags).toHaveLength(2));
  });

  it('takes values by name where parameters are not known, and offers to declare them', async () => {
    const { ui, model, host } = await mounted(new FakeServer(), {
      parameters: [],
      schema: { type: 'object', properties: {}, additionalProperties: true }
    });
    fireEvent.click(await ui.findByRole('button', { name: 'Make the selected cell the parameters cell' }));
    expect(host.done).toEqual(['tag']);
    fireEvent.click(ui.getByRole('button', { name: 'Add a value' }));
    const name = await ui.findByLabelText('Name 1');
    await waitFor(() => expect(document.activeElement).toBe(name));
    fireEvent.change(name, { target: { value: 'x' } });
    fireEvent.change(ui.getByLabelText('Value 1'), { target: { value: '[1]' } });
    expect(model.current!.values).toEqual({ x: [1] });
    fireEvent.click(ui.getByRole('button', { name: 'Add a value' }));
    fireEvent.change(await ui.findByLabelText('Value 2'), { target: { value: '2' } });
    await ui.findByText('Give it a name.');
    expect(model.current!.isUnreadable).toBe(true);
    const second = ui.getByLabelText('Name 2');
    fireEvent.change(second, { target: { value: 'x' } });
    await ui.findByText('This name is given twice.');
    expect(second.getAttribute('aria-invalid')).toBe('true');
    fireEvent.click(ui.getByRole('button', { name: 'Remove value 2' }));
    await waitFor(() => expect(model.current!.isUnreadable).toBe(false));
    host.parametersCell = true;
    model.touch(PATH);
    await ui.findByText(/cannot be read: give values by name/);
    fireEvent.click(ui.getByRole('button', { name: 'Remove value 1' }));
    expect(model.current!.values).toEqual({});
  });

  it('offers the kernels that there are', async () => {
    const { ui, model } = await mounted(new FakeServer(), {
      kernel: { name: 'gone', language: null, available: false }
    });
    const select = await ui.findByLabelText('Kernel');
    expect(ui.getByText('The kernel gone is not installed here.')).toBeTruthy();
    const run = ui.getByRole('button', { name: 'Run' });
    expect(run.getAttribute('aria-disabled')).toBe('true');
    fireEvent.change(select, { target: { value: 'ir' } });
    expect(model.current!.kernelName).toBe('ir');
    await waitFor(() => expect(run.hasAttribute('aria-disabled')).toBe(false));
  });

  it('lists the cells that can be called', async () => {
    const hostile = { method: 'GET', path: "/it's/:<b>name</b>", responds: [], cells: [3] };
    const { ui, host, place } = await mounted(new FakeServer(), {
      endpoints: [{ method: 'PUT', path: '/x' }, hostile]
    });
    fireEvent.click(await ui.findByRole('button', { name: 'Copy the call of PUT /x' }));
    expect(host.done[0]).toContain('a%20b.ipynb/x');
    expect(ui.getByText(host.done[0])).toBeTruthy();
    expect(ui.getByText(hostile.path, { exact: false, selector: 'code' })).toBeTruthy();
    expect(place.node.querySelector('.jp-NbExec-endpoints b')).toBeNull();
  });

  it('links the page on the interface', async () => {
    const { ui } = await mounted(new FakeServer());
    const link = await ui.findByRole('link', { name: 'API reference' });
    expect(link.getAttribute('href')).toMatch(/\/api\/nbexec\/docs\?path=a%20b.ipynb$/);
  });

  it('shows runs by day; each can be run again, copied, and shown', async () => {
    const runs = [
      aRun({ ...ENDED, id: 'one', parameters: { n: 5 }, user: 'Ada' }),
      aRun({
        ...ENDED,
        id: 'two',
        status: 'failed',
        created: '2026-01-01T00:00:00Z',
        error: { code: 'cell_error', cell: 2, traceback: [] } as any
      })
    ];
    const server = new FakeServer()
      .on(/^GET \/runs\?/, json({ runs, cursor: 'more' }))
      .on(/cursor=more/, json({ runs: [], cursor: null }))
      .on(/^GET \/runs\/two/, json({ ...runs[1], outputs: [] }))
      .on(/^POST/, json({ message: 'Too many.', code: 'queue_full' }, 429));
    const { ui, host } = await mounted(server);
    await ui.findByText('n=5');
    await ui.findByText('History (2+)');
    expect(ui.getByText('by Ada')).toBeTruthy();
    expect(ui.getByText(/in cell 3/)).toBeTruthy();
    fireEvent.click(ui.getAllByRole('button', { name: /^Copy the run/ })[0]);
    expect(host.done[0]).toContain('"n":5');
    fireEvent.click(ui.getAllByTitle('Show the result of this run')[1]);
    fireEvent.click(await ui.findByRole('button', { name: 'Go to cell' }));
    await waitFor(() => expect(host.done).toContain('go to 2'));
    fireEvent.click(ui.getAllByRole('button', { name: /^Run again with/ })[0]);
    await ui.findByText(/Too many runs are waiting/);
    fireEvent.click(ui.getByRole('button', { name: 'Show older runs' }));
    fireEvent.click(ui.getAllByRole('button', { name: /^More about/ })[0]);
    const item = await waitFor(() => within(document.body).getByText('Put these values into the form'));
    expect(item).toBeTruthy();
  });

  it('says that the server part is missing', async () => {
    const server = new FakeServer();
    const mount = mounted(server);
    server.on(/^GET \/a%20b/, new Response('<html>', { status: 404 }));
    const { ui } = await mount;
    await ui.findByText('jupyter server extension enable jupyter_nbexec');
    server.on(/^GET \/a%20b/, json(aDescription()));
    fireEvent.click(ui.getByRole('button', { name: 'Try again' }));
    await ui.findByLabelText(/^who/);
  });

  it('has no sections while there is no notebook', async () => {
    const { ui, model, place } = await mounted(new FakeServer());
    const sections = place.node.querySelector('.jp-SidePanel-content')!;
    expect(sections.classList.contains('lm-mod-hidden')).toBe(false);
    model.show(null, null);
    await ui.findByText('Open a notebook to run it as a service.');
    expect(sections.classList.contains('lm-mod-hidden')).toBe(true);
  });

  it('has a menu, and goes with its place', async () => {
    const { ui, place, host } = await mounted(new FakeServer());
    fireEvent.click(ui.getByRole('button', { name: 'More' }));
    await waitFor(() => within(document.body).getByText('Copy the call with the token in it'));
    expect(host.done).toEqual([]);
    place.dispose();
  });
});
