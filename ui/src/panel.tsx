import { Time } from '@jupyterlab/coreutils';
import { ellipsesIcon, SidePanel } from '@jupyterlab/ui-components';
import { CommandRegistry } from '@lumino/commands';
import { MessageLoop } from '@lumino/messaging';
import { Panel, Widget } from '@lumino/widgets';
import type { AccordionPanel } from '@lumino/widgets';
import React from 'react';
import { arranged, fixedOf, movedOf, wantedBy } from './arrange';
import { IconButton } from './components/button';
import type { ICallProps } from './components/call';
import { History } from './components/history';
import { Parameters } from './components/parameters';
import { serviceIcon } from './icons';
import { openMenu } from './menu';
import type { IMenuItem } from './menu';
import { ofFailure } from './messages';
import type { ActionId, IMessage } from './messages';
import { Rendered } from './rendered';
import type { RunModel } from './run';
import type { IPanelOptions } from './sections/options';
import { CallSection } from './sections/call';
import { openExecuted, ResultSection, wordsOfMove } from './sections/result';
import type { ServiceModel } from './service';
import { SNIPPETS } from './snippets';
import type { ICall } from './snippets';
import { CommandIDs } from './tokens';
import type { IRun, Values } from './tokens';
import { VERSION } from './version';

/** The notebook as a service: what it takes, its result, how it is called, its runs. */
export class ServicePanel extends SidePanel {
  constructor(options: IPanelOptions) {
    super();
    this.addClass('jp-NbExec');
    this._options = options;
    const { model, trans } = options;
    const header = this._react(() => this._renderHeader());
    this.header.addWidget(header);
    // It says how long ago something was.
    this._clock = setInterval(() => header.update(), 30_000);
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
      // It scrolls what is in it, whose height tells how much it needs.
      const section = new Panel();
      section.addClass('jp-NbExec-section');
      section.title.label = title;
      section.addWidget(widget);
      this.addWidget(section as any);
      this._observer.observe(widget.node);
    }
    this._observer.observe(this.header.node);
    this._accordion.widgets[0].addClass('jp-mod-parameters');
    this._accordion.collapse(HISTORY);
    // What others have run since is not told: it is read when somebody looks.
    this._accordion.expansionToggled.connect((_, index) => {
      const isOpen = !this._accordion.widgets[index].isHidden;
      if (index === HISTORY && isOpen) {
        void this._service?.loadHistory();
      }
      this._toReveal = isOpen ? index : this._toReveal;
      this._arrange();
    });
    this._accordion.handleMoved.connect(() => {
      this._drag = 'ended';
      this._arrange();
    });
    this.node.addEventListener('pointerdown', this._onPointerDown, true);
    model.changed.connect(this._onChanged, this);
    model.currentChanged.connect(this._onCurrent, this);
    this._onCurrent();
  }

  dispose(): void {
    clearInterval(this._clock);
    this._observer.disconnect();
    this._options.model.changed.disconnect(this._onChanged, this);
    this._options.model.currentChanged.disconnect(this._onCurrent, this);
    super.dispose();
  }

  /** Put the focus where one begins. */
  focusFirst(): void {
    const inputs = ':is(input, select, textarea)';
    this._focus(`:is(.jp-NbExec-field, .jp-NbExec-item) ${inputs}, .jp-mod-accept:not([aria-disabled])`);
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

  private _react(render: () => JSX.Element): Rendered {
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
    // Without a notebook there is nothing to show, and nothing to run.
    this._accordion.setHidden(this._service === null);
    this._countHistory();
    this._result.refresh();
    this._call.refresh();
    const run = this._service?.run ?? null;
    if (run !== this._lastRun) {
      this._lastRun = run;
      this._toReveal = run && !run.hasEnded ? RESULT : this._toReveal;
    }
    this._arrange();
  }

  /** The title of the history says how many runs it shows, and whether there are more. */
  private _countHistory(): void {
    const { trans } = this._options;
    const count = this._service?.history?.length ?? 0;
    const more = this._service?.hasMoreHistory ? '+' : '';
    const { titles, widgets } = this._accordion;
    const hasFocus = document.activeElement === titles[HISTORY];
    widgets[HISTORY].title.label = count ? trans.__('History (%1)', `${count}${more}`) : trans.__('History');
    // A title that is written anew is another element.
    if (hasFocus) {
      this._accordion.titles[HISTORY].focus();
    }
  }

  /** The first value that was refused gets the focus. */
  private _onRefused(): void {
    const empty = '.jp-mod-refused:not(:has([aria-invalid])) :is(select, .jp-NbExec-iconButton)';
    this._focus(`[aria-invalid="true"], ${empty}`);
  }

  /** Put the focus on what will be drawn in a moment; what is drawn still may be of another notebook. */
  private _focus(selector: string, deadline = Date.now() + 5000): void {
    const drawn = this._parameters.node.querySelector<HTMLElement>('.jp-NbExec-parameters');
    const isOurs = drawn?.dataset.path === this._service?.path;
    const found = isOurs ? drawn?.querySelector<HTMLElement>(selector) : null;
    if (found) {
      found.focus();
      // With what is said of it, and not below the buttons.
      const field = found.closest('.jp-NbExec-field:not(.jp-mod-item)') ?? found;
      field.scrollIntoView?.({ block: 'nearest' });
    } else if (Date.now() < deadline && !this.isDisposed) {
      requestAnimationFrame(() => this._focus(selector, deadline));
    }
  }

  /** Share out the height, as soon as all is drawn. */
  private _arrange(): void {
    this._arranging ??= requestAnimationFrame(() => {
      this._arranging = null;
      if (!this.isDisposed && this.isVisible) {
        this._arrangeNow();
      }
    });
  }

  /** Give each section the height that it needs, or that somebody gave it, and the result what is left. */
  private _arrangeNow(): void {
    if (this._drag === 'going on') {
      return;
    }
    const accordion = this._accordion;
    if (this._drag === 'ended') {
      this._drag = null;
      for (const [index, height] of movedOf(accordion, this._sizes)) {
        this._moved.set(index, height);
      }
    }
    const fixed = fixedOf(accordion);
    const room = this.node.clientHeight - this.header.node.offsetHeight - fixed;
    const { sizes, total } = arranged(wantedBy(accordion), room, this._moved);
    const basis = `${total + fixed}px`;
    if (accordion.node.style.flexBasis !== basis) {
      accordion.node.style.flexBasis = basis;
      MessageLoop.sendMessage(accordion, Widget.ResizeMessage.UnknownSize);
    }
    this._sizes = sizes;
    if (movedOf(accordion, sizes).length) {
      accordion.setRelativeSizes(sizes);
    }
    if (this._toReveal !== null) {
      accordion.widgets[this._toReveal].node.scrollIntoView?.({ block: 'nearest' });
      this._toReveal = null;
    }
  }

  private _renderHeader(): JSX.Element {
    const { model, trans } = this._options;
    const service = this._service;
    const saved = service?.description?.last_modified;
    return (
      <div className="jp-NbExec-header">
        <serviceIcon.react tag="span" />
        <h2 title={service?.path}>{service ? service.path : trans.__('Run as service')}</h2>
        {service && (
          <>
            {saved && <span className="jp-NbExec-when">{trans.__('saved %1', Time.formatHuman(saved))}</span>}
            <IconButton
              icon={ellipsesIcon}
              label={trans.__('More')}
              hasMenu
              onClick={event => {
                const box = event.currentTarget.getBoundingClientRect();
                this._openMenu(box.right, box.bottom);
              }}
            />
          </>
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
        path={path}
        description={description}
        values={service.values}
        defaults={service.defaults}
        draft={service.draft}
        isUnreadable={service.isUnreadable}
        generation={service.generation}
        refusals={service.refusals}
        message={service.failure && ofFailure(service.failure, { path, isOpen }, trans)}
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
        onRaw={isRaw => service.setRaw(isRaw)}
        onDraft={text => service.setDraft(text)}
        onIncomplete={isIncomplete => {
          service.isIncomplete = isIncomplete;
        }}
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
      docsUrl: model.api.docsUrl(service.path),
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
      kernel: service.kernelName,
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
        if (service.run?.failure) {
          await service.show(service.run.run);
        }
        break;
      case 'run':
        await service.start();
        break;
      case 'cancel':
        await service.cancel();
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
        return;
      case 'go-to-cell': {
        const cell = message?.cell ?? service.run?.run.error;
        if (cell) {
          await host.goToCell(service.path, cell);
        }
        return;
      }
      case 'make-parameters-cell':
        await host.makeParametersCell(service.path);
        await service.describe();
        break;
    }
    this._keepFocus(this._parameters.node, '.jp-mod-accept');
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
        label: wordsOfMove(this, trans),
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
          ? [{ label: trans.__('Cancel'), execute: () => this._end(service, run) }]
          : []),
        { label: trans.__('Delete'), execute: () => this._delete(service, run) }
      ],
      x,
      y
    );
  }

  private async _end(service: ServiceModel, run: IRun): Promise<void> {
    if (await this._mayEnd(service)) {
      await service.cancel(run);
    }
  }

  /** Ask whether to end a run, where that is wanted. */
  private async _mayEnd(service: ServiceModel): Promise<boolean> {
    const { model, host } = this._options;
    return !model.settings.confirmCancel || host.confirmCancel(service.path);
  }

  private async _delete(service: ServiceModel, run: IRun): Promise<void> {
    const isActive = run.status === 'queued' || run.status === 'running';
    if (!isActive || (await this._mayEnd(service))) {
      await service.delete(run);
      this._keepFocus(this._history.node, 'button');
    }
  }

  /** What had the focus may be gone when all is drawn, in a moment. */
  private _keepFocus(node: HTMLElement, selector: string, deadline = Date.now() + 1000): void {
    if (document.activeElement === document.body) {
      node.querySelector<HTMLElement>(selector)?.focus();
    } else if (Date.now() < deadline && !this.isDisposed) {
      requestAnimationFrame(() => this._keepFocus(node, selector, deadline));
    }
  }

  private readonly _options: IPanelOptions;
  private readonly _rendered: Rendered[] = [];
  private readonly _parameters: Rendered;
  private readonly _result: ResultSection;
  private readonly _call: CallSection;
  private readonly _history: Rendered;
  private readonly _clock: ReturnType<typeof setInterval>;
  private _watched: ServiceModel | null = null;
  private _chosenKind: string | null = null;
  private readonly _observer = new ResizeObserver(() => this._arrange());
  private readonly _onPointerDown = (event: PointerEvent) => {
    if (event.button === 0 && (event.target as Element).closest('.lm-SplitPanel-handle')) {
      this._drag = 'going on';
    }
  };
  private _drag: 'going on' | 'ended' | null = null;
  private readonly _moved = new Map<number, number>();
  private _sizes: number[] = [];
  private _arranging: number | null = null;
  /** The section that is to be scrolled into view. */
  private _toReveal: number | null = null;
  private _lastRun: RunModel | null = null;
}

/** Indices among the sections. */
const RESULT = 1;
const HISTORY = 3;
