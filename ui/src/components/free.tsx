import { addIcon, deleteIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import type { Values } from '../tokens';
import { readAny, writeAny } from '../values';
import { IconButton } from './button';

interface IRow {
  name: string;
  text: string;
}

/** Values by name, for a notebook that does not say what it takes. */
export function FreeValues(props: {
  values: Values;
  refusals: { readonly [name: string]: string[] };
  onChange: (values: Values) => void;
  trans: TranslationBundle;
}): JSX.Element {
  const { trans } = props;
  const [rows, setRows] = React.useState<IRow[]>(() => rowsOf(props.values));
  // Only values that come from elsewhere are taken: what is typed is not yet among them.
  React.useEffect(() => {
    setRows(old => (sameValues(valuesOf(old), props.values) ? old : rowsOf(props.values)));
  }, [props.values]);
  const change = (changed: IRow[]) => {
    setRows(changed);
    props.onChange(valuesOf(changed));
  };
  const set = (index: number, row: Partial<IRow>) =>
    change(rows.map((old, at) => (at === index ? { ...old, ...row } : old)));
  return (
    <fieldset className="jp-NbExec-list jp-NbExec-free">
      <legend>{trans.__('Values')}</legend>
      {rows.map((row, index) => (
        <div key={index} className="jp-NbExec-item">
          <input
            className="jp-mod-styled"
            aria-label={trans.__('Name %1', index + 1)}
            placeholder={trans.__('name')}
            value={row.name}
            spellCheck={false}
            onChange={event => set(index, { name: event.target.value })}
          />
          <input
            className="jp-mod-styled"
            aria-label={trans.__('Value %1', index + 1)}
            placeholder={trans.__('JSON, or text')}
            value={row.text}
            spellCheck={false}
            onChange={event => set(index, { text: event.target.value })}
          />
          <IconButton
            icon={deleteIcon}
            label={trans.__('Remove value %1', index + 1)}
            onClick={() => change(rows.filter((_, at) => at !== index))}
          />
          {(props.refusals[row.name] ?? []).map(problem => (
            <div key={problem} className="jp-NbExec-refusal" role="alert">
              {problem}
            </div>
          ))}
        </div>
      ))}
      <IconButton
        icon={addIcon}
        label={trans.__('Add a value')}
        onClick={() => setRows([...rows, { name: '', text: '' }])}
      />
    </fieldset>
  );
}

function rowsOf(values: Values): IRow[] {
  return Object.entries(values).map(([name, value]) => ({ name, text: writeAny(value) }));
}

function valuesOf(rows: IRow[]): Values {
  const values: Values = {};
  for (const { name, text } of rows) {
    if (name) {
      values[name] = readAny(text) ?? '';
    }
  }
  return values;
}

function sameValues(one: Values, other: Values): boolean {
  return JSON.stringify(rowsOf(one)) === JSON.stringify(rowsOf(other));
}
