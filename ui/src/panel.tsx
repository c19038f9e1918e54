import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import {
  downloadIcon,
  ellipsesIcon,
  launchIcon,
  notebookIcon,
  ReactWidget,
  saveIcon,
  SidePanel
} from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { AccordionPanel, Menu, Panel, Widget } from '@lumino/widgets';
import React from 'react';
import { CallNotes, CallTools } from './components/call';
import type { ICallProps } from './components/call';
import { History } from './components/history';
import { Message } from './components/message';
import { Parameters } from './components/parameters';
import { ResultActions } from './components/result';
import type { IResultAction } from './components/result';
import { Status } from './components/status';
import type { Host } from './host';
import { serviceIcon } from './icons';
import { stringify } from './json';
import { ofFailure, ofRun } from './messages';
import type { ActionId, IMessage } from './messages';
import type { PanelModel } from './model';
import { printable, RunOutputs } from './outputs';
import type { RunModel } from './run';
import type { ServiceModel } from './service';
import { SNIPPETS } from './snippets';
import type { ICall } from './snippets';
import { CommandIDs } from './tokens';
import type { IRun, Values } from './tokens';

import { VERSION } from './version';

export interface IPanelOptions {
  model: PanelModel;
  host: Host;
  commands: CommandRegistry;
  rendermime: IRenderMimeRegistry;
  trans: TranslationBundle;
}

/** The notebook as a service: what it takes, its result, how it is called, its runs. */
export class ServicePanel extends SidePanel {
  constructor(options: IPanelOptions) {
    super();
    this.addClass('jp-NbExec');
    this._options = options;
    const { model, trans } = options;
    this.header.addWidget(this._react(() => this._renderHeader()));
    this._parameters = this._react(() => this._renderParameters());
    this._result = new ResultSection(options, id => void this._act(id));
    this._call = new CallSection(options, () => this._callProps());
    this._history = this._react(() => this._renderHistory());
    const sections: [Widget, string][] = [
      [this._parameters, trans.__('Parameters')],
      [this._result, trans.__('Result')],
      [this._call, trans.__('Call it')],
      [this._history, trans.__('History')]
    ];
    for (const [widget, title] of sections) {
      widget.addClass('jp-NbExec-section');
      widget.title.label = title;
      this.addWidget(widget as any);
    }
    this._accordion.collapse(HISTORY);
    // What others have run since is not told: it is read when somebody looks.
    this._accordion.expansionToggled.connect((_, index) => {
      if (index === HISTORY && !this._history.isHidden) {
        void this._service?.loadHistory();
      }
    });
    this._accordion.handleMoved.connect(() => {
      this._isArranged = true;
    });
    model.changed.connect(this._onChanged, this);
    model.currentChanged.connect(this._onCurrent, this);
    this._onCurrent();
  }

  dispose(): void {
    this._options.model.changed.disconnect(this._onChanged, this);
    this._options.model.currentChanged.disconnect(this._onCurrent, this);
    super.dispose();
  }

  /** Put the focus where one begins. */
  focusFirst(): void {
    const inputs = ':is(input, select, textarea)';
    focusSoon(
      this._parameters.node,
      `:is(.jp-NbExec-field, .jp-NbExec-item) ${inputs}, .jp-mod-accept:enabled`
    );
  }

  protected onResize(message: Widget.ResizeMessage): void {
    super.onResize(message);
    this._arrange();
  }

  private get _service(): ServiceModel | null {
    return this._options.model.current;
  }

  private get _accordion(): AccordionPanel {
    return this.content as AccordionPanel;
  }

  private _react(render: () => JSX.Element): ReactWidget {
    const widget = new Rendered(render);
    this._rendered.push(widget);
    return widget;
  }

  private _onCurrent(): void {
    this._watched?.refused.disconnect(this._onRefused, this);
    this._watched = this._service;
    this._watched?.refused.connect(this._onRefused, this);
    this._onChanged();
  }

  private _onChanged(): void {
    for (const widget of this._rendered) {
      widget.update();
    }
    this._result.refresh();
    this._call.refresh();
    this._arrange();
  }

  /** The first value that was refused gets the focus. */
  private _onRefused(): void {
    focusSoon(this._parameters.node, '[aria-invalid="true"]');
  }

  /** Give each section the height that it needs, and the result what is left; until somebody moves a handle. */
  private _arrange(): void {
    if (this._isArranged || this._isArranging) {
      return;
    }
    this._isArranging = true;
    // The sections are drawn a moment later, and the snippet after that.
    setTimeout(() => {
      this._isArranging = false;
      if (this.isDisposed || !this.isVisible || this._isArranged) {
        return;
      }
      const widgets = this._accordion.widgets;
      const wanted = widgets.map(widget => (widget.isHidden ? 0 : needed(widget)));
      const room = this._accordion.node.clientHeight - widgets.length * TITLE;
      const others = wanted.reduce((sum, height, index) => (index === 1 ? sum : sum + height), 0);
      const least = this._service?.run ? Math.max(LEAST, room * SHARE) : LEAST;
      const scale = Math.min(1, Math.max(room - least, LEAST) / Math.max(others, 1));
      const sizes = wanted.map((height, index) => (index === 1 ? 0 : height * scale));
      sizes[1] = widgets[1].isHidden ? 0 : Math.max(room - others * scale, least);
      const rounded = sizes.map(size => Math.round(size));
      if (rounded.join() !== this._sizes) {
        this._sizes = rounded.join();
        this._accordion.setRelativeSizes(rounded);
      }
    }, 100);
  }

  private _renderHeader(): JSX.Element {
    const { model, trans } = this._options;
    const service = this._service;
    return (
      <div className="jp-NbExec-header">
        <serviceIcon.react tag="span" />
        <h2 title={service?.path}>{service ? service.path : trans.__('Run as service')}</h2>
        {service && (
          <button
            type="button"
            className="jp-NbExec-iconButton"
            aria-haspopup="menu"
            aria-label={trans.__('More')}
            title={trans.__('More')}
            onClick={event => {
              const box = event.currentTarget.getBoundingClientRect();
              this._openMenu(box.right, box.bottom);
            }}
          >
            <ellipsesIcon.react tag="span" />
          </button>
        )}
        {model.otherVersion && (
          <div className="jp-NbExec-message jp-mod-warning" role="status">
            {trans.__(
              'This is version %1, the server part is %2: reload the page, or restart the server.',
              VERSION,
              model.otherVersion
            )}
          </div>
        )}
        {!service && <p className="jp-NbExec-note">{trans.__('Open a notebook to run it as a service.')}</p>}
      </div>
    );
  }

  private _renderParameters(): JSX.Element {
    const { host, trans, commands } = this._options;
    const service = this._service;
    if (!service) {
      return <></>;
    }
    const { description, notebook, path } = service;
    const isOpen = notebook !== null;
    const keys = commands.keyBindings.find(binding => binding.command === CommandIDs.run)?.keys ?? [];
    return (
      <Parameters
        // What is typed belongs to this notebook.
        key={path}
        description={description}
        values={service.values}
        defaults={service.defaults}
        refusals={service.refusals}
        message={this._messageOfFailure(service, isOpen)}
        hasParametersCell={host.hasParametersCell(path)}
        canMakeParametersCell={isOpen && host.canMakeParametersCell(path)}
        kernels={description && !description.kernel.available ? host.kernels() : null}
        kernelName={service.kernelName}
        activity={service.activity}
        isBusy={service.isBusy}
        hasRun={service.run !== null}
        isUnsaved={isOpen && notebook.isDirty && !this._options.model.settings.saveBeforeRun}
        shortcut={keys.map(key => CommandRegistry.formatKeystroke(key)).join(' ')}
        onChange={values => service.setValues(values)}
        onReset={() => service.reset()}
        onKernel={name => {
          service.kernelName = name;
        }}
        onRun={() => void service.start()}
        onCancel={() => void commands.execute(CommandIDs.cancel)}
        onAction={(action, message) => void this._act(action, message)}
        trans={trans}
      />
    );
  }

  /** Why the last request failed; what is wrong with a field is told at the field. */
  private _messageOfFailure(service: ServiceModel, isOpen: boolean): IMessage | null {
    const { trans } = this._options;
    if (!service.failure) {
      return null;
    }
    const message = ofFailure(service.failure, { path: service.path, isOpen }, trans);
    const fields = Object.keys(service.description?.schema.properties ?? {});
    const refused = Object.keys(service.refusals);
    if (refused.length && refused.every(name => fields.includes(name))) {
      return { ...message, detail: undefined };
    }
    return message;
  }

  private _renderHistory(): JSX.Element {
    const { host, trans } = this._options;
    const service = this._service;
    if (!service) {
      return <></>;
    }
    return (
      <History
        runs={service.history}
        hasMore={service.hasMoreHistory}
        shownId={service.run?.id ?? null}
        isBusy={service.isBusy}
        onShow={run => void service.show(run)}
        onAgain={run => {
          service.takeValues(run);
          void service.start({ parameters: run.parameters });
        }}
        onCopy={run => host.copy(this._snippet(run.parameters))}
        onMenu={(run, x, y) => this._openRunMenu(service, run, x, y)}
        onMore={() => void service.loadMore()}
        trans={trans}
      />
    );
  }

  private _callProps(): ICallProps | null {
    const { model, host, trans } = this._options;
    const service = this._service;
    if (!service) {
      return null;
    }
    return {
      kind: this._kind,
      text: this._snippet(service.given),
      openApiUrl: model.api.openApiUrl(service.path),
      endpoints: service.description?.endpoints ?? [],
      endpointUrl: endpoint => model.api.url(service.path) + endpoint.path,
      onKind: kind => {
        this._chosenKind = kind;
        this._call.refresh();
        this._arrange();
      },
      onCopy: text => host.copy(text),
      trans
    };
  }

  private get _kind(): string {
    const wanted = this._chosenKind ?? this._options.model.settings.defaultSnippet;
    return wanted in SNIPPETS ? wanted : 'curl';
  }

  private _snippet(parameters: Values, token?: string): string {
    const { api } = this._options.model;
    const service = this._service!;
    const call: ICall = {
      url: api.url(service.path),
      server: api.serverSettings.baseUrl,
      path: service.path,
      parameters,
      token
    };
    return SNIPPETS[this._kind].write(call);
  }

  private async _act(action: ActionId, message?: IMessage): Promise<void> {
    const { host } = this._options;
    const service = this._service;
    if (!service) {
      return;
    }
    switch (action) {
      case 'refresh':
        service.dismiss();
        await service.refresh();
        break;
      case 'run':
        await service.start();
        break;
      case 'run-without-limit':
        await service.start({ timeout: 0 });
        break;
      case 'save':
        await service.notebook?.save();
        await service.refresh();
        break;
      case 'settings':
        host.openSettings();
        break;
      case 'go-to-cell': {
        const cell = message?.cell ?? service.run?.run.error;
        if (cell) {
          await host.goToCell(service.path, cell);
        }
        break;
      }
      case 'make-parameters-cell':
        await host.makeParametersCell(service.path);
        await service.describe();
        break;
    }
  }

  private _openMenu(x: number, y: number): void {
    const { model, host, commands, trans } = this._options;
    const service = this._service!;
    const token = model.api.serverSettings.token;
    const items: IMenuItem[] = [];
    if (token) {
      items.push({
        label: trans.__('Copy the call with the token in it'),
        execute: () => host.copy(this._snippet(service.given, token))
      });
    }
    items.push({ label: trans.__('Read the notebook again'), execute: () => service.refresh() });
    if (commands.hasCommand(CommandIDs.openInTab)) {
      items.push({
        label: commands.label(CommandIDs.openInTab),
        execute: () => commands.execute(CommandIDs.openInTab)
      });
    }
    if (host.hasSettings) {
      items.push({ label: trans.__('Settings'), execute: () => host.openSettings() });
    }
    openMenu(items, x, y);
  }

  private _openRunMenu(service: ServiceModel, run: IRun, x: number, y: number): void {
    const { trans } = this._options;
    openMenu(
      [
        { label: trans.__('Put these values into the form'), execute: () => service.takeValues(run) },
        {
          label: trans.__('Open executed notebook'),
          execute: () => openExecuted(this._options, service, run)
        },
        ...(run.status === 'queued' || run.status === 'running'
          ? [{ label: trans.__('Cancel'), execute: () => this._options.model.api.cancel(run.id) }]
          : []),
        { label: trans.__('Delete'), execute: () => service.delete(run) }
      ],
      x,
      y
    );
  }

  private readonly _options: IPanelOptions;
  private readonly _rendered: Rendered[] = [];
  private readonly _parameters: ReactWidget;
  private readonly _result: ResultSection;
  private readonly _call: CallSection;
  private readonly _history: ReactWidget;
  private _watched: ServiceModel | null = null;
  private _chosenKind: string | null = null;
  private _isArranged = false;
  private _isArranging = false;
  private _sizes = '';
}

/** The index of the history among the sections. */
const HISTORY = 3;

/** Pixels of a section's title, and those that the result gets at least; of all, once there is one. */
const TITLE = 32;
const LEAST = 120;
const SHARE = 0.4;

/** A widget that draws what a function gives. */
class Rendered extends ReactWidget {
  constructor(private readonly _render: () => JSX.Element) {
    super();
  }

  protected render(): JSX.Element {
    return this._render();
  }
}

/** The run that is shown: its state, its result, its outputs. */
class ResultSection extends Panel {
  constructor(
    private readonly _options: IPanelOptions,
    private readonly _act: (action: ActionId) => void
  ) {
    super();
    this.addClass('jp-NbExec-result');
    this._status = new Rendered(() => this._renderStatus());
    this._value = new ValueView(_options);
    this._actions = new Rendered(() => this._renderActions());
    this.addWidget(this._status);
    this.addWidget(this._value);
    this.addWidget(this._actions);
  }

  refresh(): void {
    const run = this._run;
    if (run !== this._shown) {
      this._shown = run;
      this._outputs?.dispose();
      this._outputs = run ? this._draw(run) : null;
      if (this._outputs) {
        this.insertWidget(2, this._outputs);
      }
    }
    this._value.refresh(run);
    this._status.update();
    this._actions.update();
    const isTicking = run !== null && !run.hasEnded;
    if (isTicking && this._timer === undefined) {
      this._timer = setInterval(() => this._status.update(), 500);
    } else if (!isTicking) {
      this._stop();
    }
  }

  dispose(): void {
    this._stop();
    super.dispose();
  }

  private get _run(): RunModel | null {
    return this._options.model.current?.run ?? null;
  }

  private _stop(): void {
    clearInterval(this._timer);
    this._timer = undefined;
  }

  private _draw(run: RunModel): RunOutputs {
    const { model, host, trans } = this._options;
    const service = model.current!;
    return new RunOutputs(run, {
      rendermime: host.rendermimeOf(service.path),
      maxOutputs: model.settings.maxOutputs,
      onGo: service.notebook ? cell => void host.goToCell(service.path, cell) : null,
      trans
    });
  }

  private _renderStatus(): JSX.Element {
    const { model, host, trans } = this._options;
    const run = this._run;
    const service = model.current;
    if (!run || !service) {
      return <p className="jp-NbExec-note">{trans.__('Not run yet.')}</p>;
    }
    const { cell } = run.run.progress;
    const message = ofRun(run, trans);
    return (
      <>
        <Status
          run={run.run}
          phase={run.phase}
          seconds={run.seconds}
          size={run.size}
          ahead={service.ahead}
          line={cell === null ? '' : host.lineOf(service.path, { cell, cell_id: null })}
          timing={run.timing}
          trans={trans}
        />
        {message && <Message message={message} onAction={this._act} trans={trans} />}
        {run.run.warnings.map(warning => (
          <p key={warning} className="jp-NbExec-note">
            {warning}
          </p>
        ))}
      </>
    );
  }

  private _renderActions(): JSX.Element {
    const { model, host, trans } = this._options;
    const run = this._run;
    const service = model.current;
    if (!run?.hasEnded || !service) {
      return <></>;
    }
    const { run: document } = run;
    const actions: IResultAction[] = [
      {
        label: document.saved_as
          ? trans.__('Open executed notebook')
          : trans.__('Save executed notebook as…'),
        icon: document.saved_as ? notebookIcon : saveIcon,
        onClick: () => void openExecuted(this._options, service, document)
      },
      {
        label: trans.__('Download JSON'),
        icon: downloadIcon,
        onClick: async () => {
          const whole = await model.api.run(run.id);
          host.download(`${run.id}.json`, 'application/json', stringify(whole as any, 1));
        }
      }
    ];
    if (this._options.commands.hasCommand(CommandIDs.openInTab)) {
      actions.push({
        label: this._options.commands.label(CommandIDs.openInTab),
        icon: launchIcon,
        onClick: () => void this._options.commands.execute(CommandIDs.openInTab)
      });
    }
    return (
      <>
        {!run.isTrusted && run.cells.some(cell => cell.outputs.length) && (
          <p className="jp-NbExec-note">
            {trans.__('This run was not started from here: scripts in its outputs are left out.')}
          </p>
        )}
        <ResultActions actions={actions} />
      </>
    );
  }

  private readonly _status: Rendered;
  private readonly _value: ValueView;
  private readonly _actions: Rendered;
  private _outputs: RunOutputs | null = null;
  private _shown: RunModel | null = null;
  private _timer: ReturnType<typeof setInterval> | undefined;
}

/** The value that the notebook gives back, as JupyterLab shows JSON. */
class ValueView extends Panel {
  constructor(private readonly _options: IPanelOptions) {
    super();
    this.addClass('jp-NbExec-value');
    this._label.addClass('jp-NbExec-cellHeader');
    this._label.node.textContent = _options.trans.__('Result');
    this.addWidget(this._label);
    this.hide();
  }

  refresh(run: RunModel | null): void {
    const key = run?.phase === 'ok' && run.run.result_type !== null ? run.id : null;
    if (key === this._key) {
      return;
    }
    this._key = key;
    this._view?.dispose();
    this._view = null;
    this.setHidden(key === null);
    if (key !== null) {
      this._view = this._draw(run!.run);
      this.addWidget(this._view);
    }
  }

  private _draw(run: IRun): Widget {
    const { result } = run;
    if (typeof result === 'object' && result !== null) {
      const type = 'application/json';
      const output = printable({
        output_type: 'display_data',
        data: { [type]: result as any },
        metadata: {}
      });
      const { rendermime } = this._options;
      if (rendermime.mimeTypes.includes(type)) {
        const renderer = rendermime.createRenderer(type);
        renderer.addClass('jp-OutputArea-output');
        void renderer.renderModel(
          rendermime.createModel({ data: (output as any).data, metadata: {} } as any)
        );
        const frame = new Panel();
        frame.addClass('jp-OutputArea');
        frame.addWidget(renderer);
        return frame;
      }
    }
    const widget = new Widget({ node: document.createElement('pre') });
    widget.node.tabIndex = 0;
    widget.node.textContent =
      run.result_type === 'text/plain' && typeof result === 'string' ? result : stringify(result, 2);
    return widget;
  }

  private readonly _label = new Widget();
  private _view: Widget | null = null;
  private _key: string | null = null;
}

/** The call that does what the form does, as it would be typed. */
class CallSection extends Panel {
  constructor(
    private readonly _options: IPanelOptions,
    private readonly _props: () => ICallProps | null
  ) {
    super();
    this._tools = new Rendered(() => this._render(CallTools));
    this._notes = new Rendered(() => this._render(CallNotes));
    this._code.addClass('jp-NbExec-code');
    this.addWidget(this._tools);
    this.addWidget(this._code);
    this.addWidget(this._notes);
  }

  refresh(): void {
    this._tools.update();
    this._notes.update();
    const props = this._props();
    const source = props ? `\`\`\`\`\`\`${SNIPPETS[props.kind].fence}\n${props.text}\n\`\`\`\`\`\`` : '';
    if (source !== this._source) {
      this._source = source;
      void this._draw(source);
    }
  }

  private async _draw(source: string): Promise<void> {
    const { rendermime } = this._options;
    const renderer = rendermime.createRenderer('text/markdown');
    await renderer.renderModel(rendermime.createModel({ data: { 'text/markdown': source } }));
    if (source !== this._source || this.isDisposed) {
      renderer.dispose();
      return;
    }
    for (const old of [...this._code.widgets]) {
      old.dispose();
    }
    for (const pre of renderer.node.querySelectorAll('pre')) {
      pre.tabIndex = 0;
    }
    this._code.addWidget(renderer);
  }

  private _render(Component: (props: ICallProps) => JSX.Element): JSX.Element {
    const props = this._props();
    return props ? <Component {...props} /> : <></>;
  }

  private readonly _tools: Rendered;
  private readonly _notes: Rendered;
  private readonly _code = new Panel();
  private _source = '';
}

/** Open the executed notebook: the copy that the service has kept, or one that is saved now. */
async function openExecuted(options: IPanelOptions, service: ServiceModel, run: IRun): Promise<void> {
  const { model, host } = options;
  const path = run.saved_as ?? (await host.saveAs(await model.api.notebook(run.id), service.path, run.id));
  if (path !== null) {
    await host.open(path);
  }
}

interface IMenuItem {
  label: string;
  execute: () => unknown;
}

/** A menu that is there until it is closed. */
function openMenu(items: IMenuItem[], x: number, y: number): void {
  const commands = new CommandRegistry();
  const menu = new Menu({ commands });
  items.forEach((item, index) => {
    const id = `${index}`;
    commands.addCommand(id, { label: item.label, execute: item.execute });
    menu.addItem({ command: id });
  });
  menu.aboutToClose.connect(() => {
    setTimeout(() => menu.dispose());
  });
  menu.open(x, y);
}

/** Put the focus on what will be drawn in a moment. */
function focusSoon(node: HTMLElement, selector: string, deadline = Date.now() + 2000): void {
  const found = node.querySelector<HTMLElement>(selector);
  if (found) {
    found.focus();
  } else if (Date.now() < deadline) {
    requestAnimationFrame(() => focusSoon(node, selector, deadline));
  }
}

/** Pixels that a section needs to be seen as a whole. */
function needed(widget: Widget): number {
  const node = widget.node;
  const last = node.lastElementChild;
  if (!last) {
    return 0;
  }
  const top = node.getBoundingClientRect().top - node.scrollTop;
  const bottom = Array.from(node.children).reduce(
    (lowest, child) => Math.max(lowest, child.getBoundingClientRect().bottom),
    0
  );
  return Math.ceil(bottom - top + 12);
}
