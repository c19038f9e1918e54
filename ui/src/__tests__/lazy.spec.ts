import { CommandRegistry } from '@lumino/commands';
import { DockPanel, StackedPanel } from '@lumino/widgets';
import { LazyPanel } from '../lazy';
import { PanelModel } from '../model';
import { CommandIDs } from '../tokens';
import { attach } from './cleanup';
import { FakeServer, trans, until } from './fakes';

it('can be closed as a tab only, and goes back to its place then', async () => {
  const model = new PanelModel({ api: new FakeServer().on(/openapi/, new Error('offline')).api });
  const commands = new CommandRegistry();
  const side = new StackedPanel();
  const main = new DockPanel();
  for (const widget of [side, main]) {
    attach(widget);
  }
  const panel = new LazyPanel({ model, commands, trans } as any);
  panel.load = () => Promise.resolve(null as any);
  commands.addCommand(CommandIDs.openInTab, { execute: () => side.addWidget(panel) });
  side.addWidget(panel);
  expect(panel.title.closable).toBe(false);
  panel.close();
  main.addWidget(panel);
  expect(panel.title.closable).toBe(true);
  expect(panel.title.label).toBe('Run as service');
  panel.close();
  await until(() => panel.parent === side);
  expect(panel.title.closable).toBe(false);
  expect(panel.title.label).toBe('');
  expect(panel.isDisposed).toBe(false);
});
