import { RenderMimeRegistry, standardRendererFactories } from '@jupyterlab/rendermime';
import { CommandRegistry } from '@lumino/commands';
import { DockPanel, Widget } from '@lumino/widgets';
import { ResultSection, wordsOfMove } from '../sections/result';
import { attach } from './cleanup';
import { aRun, ENDED, trans, until } from './fakes';

/** A renderer that, as that of JSON, draws nothing any more once it was taken off the page. */
class Fleeting extends Widget {
  async renderModel(model: any): Promise<void> {
    this.node.textContent = JSON.stringify(model.data['application/json']);
  }

  protected onBeforeDetach(): void {
    this.node.textContent = '';
  }
}

function shown(result: any, type: string) {
  const rendermime = new RenderMimeRegistry({ initialFactories: standardRendererFactories });
  const mimeTypes = ['application/json'];
  rendermime.addFactory({ safe: true, mimeTypes, createRenderer: () => new Fleeting() as any });
  const document = aRun({ ...ENDED, result, result_type: type });
  const run = {
    id: document.id,
    run: document,
    phase: 'ok',
    cells: [],
    hasEnded: true,
    isTrusted: true,
    seconds: 2,
    size: 1,
    notRun: 0,
    timing: {},
    outputChanged: { connect: () => true, disconnect: () => true },
    changed: { connect: () => true, disconnect: () => true }
  };
  const section = new ResultSection(
    {
      model: { current: { run, path: 'a.ipynb', ahead: null, notebook: null }, settings: { maxOutputs: 5 } },
      host: { rendermimeOf: () => rendermime, lineOf: () => '' },
      commands: new CommandRegistry(),
      rendermime,
      trans
    } as any,
    () => undefined
  );
  attach(section);
  section.refresh();
  return { section, value: () => section.node.querySelector('.jp-NbExec-value')! };
}

it('is still shown after it was moved to another place', async () => {
  const { section, value } = shown({ a: 1 }, 'application/json');
  await until(() => value().textContent!.includes('{"a":1}'));
  Widget.detach(section);
  attach(section);
  await until(() => value().textContent!.includes('{"a":1}'));
});

it('has the colours that a terminal would have', async () => {
  const { value } = shown('\u001b[33m6\u001b[39m', 'text/plain');
  await until(() => value().querySelector('.ansi-yellow-fg'));
  expect(value().textContent).toContain('6');
  expect(value().textContent).not.toContain('[33m');
  await until(() => value().querySelector('pre')!.tabIndex === 0);
});

it('can be moved to where it is not', () => {
  const widget = new Widget();
  expect(wordsOfMove(widget, trans)).toBe('Open in a tab');
  const main = new DockPanel();
  main.addWidget(widget);
  expect(wordsOfMove(widget, trans)).toBe('Move to the side bar');
  main.dispose();
});
