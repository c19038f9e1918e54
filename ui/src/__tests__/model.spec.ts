import { PanelModel } from '../model';
import { DEFAULT_SETTINGS } from '../tokens';
import { VERSION } from '../version';
import { aDescription, FakeServer, json, until } from './fakes';

function aServer(): FakeServer {
  return new FakeServer()
    .on(/^GET \/runs/, json({ runs: [], cursor: null }))
    .on(/ipynb$/, json(aDescription()));
}

it('shows one notebook after the other, and keeps what was typed', async () => {
  const model = new PanelModel({ api: aServer().api });
  const shown: unknown[] = [];
  model.currentChanged.connect((_, service) => shown.push(service?.path ?? null));
  model.show('a.ipynb', null);
  const first = model.current!;
  await until(() => first.history);
  first.setValues({ n: 5 });
  model.show('b.ipynb', null);
  await until(() => model.current!.history);
  model.show('a.ipynb', null);
  model.show('a.ipynb', null);
  await until(() => first.description);
  expect(model.current).toBe(first);
  expect(first.values).toEqual({ n: 5 });
  expect(shown).toEqual(['a.ipynb', 'b.ipynb', 'a.ipynb']);
  expect([...model.services]).toHaveLength(2);
});

it('tells of changes of what is shown, and of all services', async () => {
  const model = new PanelModel({ api: aServer().api });
  model.show('a.ipynb', null);
  const hidden = model.current!;
  model.show('b.ipynb', null);
  await until(() => model.current!.history && hidden.history);
  const told = { changed: 0, service: 0 };
  model.changed.connect(() => (told.changed += 1));
  model.serviceChanged.connect(() => (told.service += 1));
  hidden.setValues({});
  expect(told).toEqual({ changed: 0, service: 1 });
  model.current!.setValues({});
  model.touch('b.ipynb');
  model.touch('a.ipynb');
  model.settings = DEFAULT_SETTINGS;
  expect(told).toEqual({ changed: 3, service: 2 });
  expect(model.settings).toBe(DEFAULT_SETTINGS);
});

it('follows a notebook that is renamed', async () => {
  const model = new PanelModel({ api: aServer().api });
  model.show('a.ipynb', null);
  model.rename('a.ipynb', 'c.ipynb');
  model.rename('nobody.ipynb', 'd.ipynb');
  expect(model.current!.path).toBe('c.ipynb');
  await until(() => model.current!.history);
});

it.each([
  ['9.9.9', '9.9.9'],
  [VERSION, null]
])('compares the versions of the two parts: %s', async (version, other) => {
  const server = new FakeServer().on(/openapi/, json({ info: { version } }));
  const model = new PanelModel({ api: server.api });
  await model.compareVersions();
  await model.compareVersions();
  expect(model.otherVersion).toBe(other);
  expect(server.asked).toHaveLength(1);
});

it('knows no other version where nothing answers', async () => {
  const model = new PanelModel({ api: new FakeServer().on(/./, new Error('no')).api });
  await model.compareVersions();
  expect(model.otherVersion).toBeNull();
});
