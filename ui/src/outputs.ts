import type { IOutput } from '@jupyterlab/nbformat';
import { OutputAreaModel, SimplifiedOutputArea } from '@jupyterlab/outputarea';
import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Panel } from '@lumino/widgets';
import React from 'react';
import { CellHeader } from './components/result';
import { printable, textOf } from './nbformat';
import { Rendered } from './rendered';
import type { ICellState, OutputChange, RunModel } from './run';
import type { ICellReference } from './tokens';

/** Characters of a cell's streams that are drawn: more makes the page slow, and nobody reads it here. */
export const MAX_TEXT = 200_000;

export interface IOutputsOptions {
  rendermime: IRenderMimeRegistry;
  maxOutputs: number;
  onGo: ((cell: ICellReference) => void) | null;
  trans: TranslationBundle;
}

/** The outputs of a run, cell by cell, as they come. */
export class RunOutputs extends Panel {
  constructor(
    readonly model: RunModel,
    private readonly _options: IOutputsOptions
  ) {
    super();
    this.addClass('jp-NbExec-outputs');
    for (const cell of model.cells) {
      this._add(cell);
    }
    model.outputChanged.connect(this._onOutput, this);
    model.changed.connect(this._onChanged, this);
  }

  dispose(): void {
    this.model.outputChanged.disconnect(this._onOutput, this);
    this.model.changed.disconnect(this._onChanged, this);
    super.dispose();
  }

  private _onOutput(_: RunModel, change: OutputChange): void {
    const index = this.model.cells.findIndex(cell => cell.key === change.key);
    if (change.type === 'new') {
      this._add(this.model.cells[index]);
      return;
    }
    (this.widgets[index] as CellOutputs).apply(change);
  }

  private _onChanged(): void {
    for (const widget of this.widgets) {
      (widget as CellOutputs).refresh(this.model.hasEnded);
    }
  }

  private _add(cell: ICellState): void {
    const index = this.model.cells.indexOf(cell);
    const widget = new CellOutputs(this.model, cell, this._options);
    this.insertWidget(index, widget);
    widget.refresh(this.model.hasEnded);
  }
}

/** The outputs of one cell, below its name. */
class CellOutputs extends Panel {
  constructor(
    run: RunModel,
    private readonly _cell: ICellState,
    private readonly _options: IOutputsOptions
  ) {
    super();
    const { trans } = _options;
    this.addClass('jp-NbExec-cell');
    this._header = new Rendered(() => this._renderHeader());
    this._area = new SimplifiedOutputArea({
      model: new OutputAreaModel({ trusted: run.isTrusted }),
      rendermime: _options.rendermime,
      maxNumberOutputs: _options.maxOutputs
    });
    this._notice.addClass('jp-NbExec-note');
    this._notice.node.textContent = trans.__('The rest of the text is in the executed notebook.');
    this._notice.hide();
    this.addWidget(this._header);
    this.addWidget(this._area);
    this.addWidget(this._notice);
    for (const output of _cell.outputs) {
      this._draw(output);
    }
  }

  apply(change: OutputChange): void {
    switch (change.type) {
      case 'add':
        this._draw(change.output);
        break;
      case 'set':
        this._area.model.set(change.index, printable(change.output));
        break;
      case 'clear':
        this._area.model.clear();
        this._text = 0;
        this._notice.hide();
        break;
    }
  }

  /** Show what is worth it: a cell without outputs only while it is at work. */
  refresh(hasEnded: boolean): void {
    this._isRunning = this._cell.state === 'started' && !hasEnded;
    this.setHidden(!this._isRunning && !this._cell.outputs.length);
    const key = `${this._isRunning} ${this._cell.seconds}`;
    if (key !== this._shown) {
      this._shown = key;
      this._header.update();
    }
  }

  dispose(): void {
    this._area.model.dispose();
    super.dispose();
  }

  private _draw(output: IOutput): void {
    this._describe();
    if (output.output_type !== 'stream') {
      this._area.model.add(printable(output));
      return;
    }
    const text = textOf(output.text);
    const room = MAX_TEXT - this._text;
    this._text += text.length;
    if (room > 0) {
      this._area.model.add({ ...output, text: text.slice(0, room) } as IOutput);
    }
    this._notice.setHidden(this._text <= MAX_TEXT);
  }

  /** Text that scrolls must be reachable by keys. */
  private _describe(): void {
    requestAnimationFrame(() => {
      for (const pre of this._area.node.querySelectorAll('pre')) {
        pre.tabIndex = 0;
      }
    });
  }

  private _renderHeader(): JSX.Element {
    const { onGo, trans } = this._options;
    const { _cell: cell, _isRunning: isRunning } = this;
    return React.createElement(CellHeader, { cell, isRunning, seconds: cell.seconds, onGo, trans });
  }

  private readonly _area: SimplifiedOutputArea;
  private readonly _notice = new Panel();
  private readonly _header: Rendered;
  private _isRunning = false;
  private _text = 0;
  private _shown = '';
}
