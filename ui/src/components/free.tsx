import { addIcon, deleteIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import type { Values } from '../tokens';
import { readAny, writeAny } from '../values';
import { IconButton } from './button';
import { Text } from './text';

interface IRow {
  name: string;
  text: string;
}

/** Values by name, for a notebook that does not say what it takes. */
export function FreeValues(props: {
  values: Values;
  refusals: { readonly [name: string]: string[] };
  onChange: (values: Values) => void;
  /** Whether some of what is typed has no name of its own, and so is not among the values. */
  onIncomplete: (isIncomplete: boolean) => void;
  trans: TranslationBundle;
}): JSX.Element {
  const { onIncomplete, trans } = props;
  const [rows, setRows] = React.useState<IRow[]>(() => rowsOf(props.values));
  const node = React.useRef<HTMLFieldSetElement>(null);
  const toFocus = React.useRef('');
  // Only values that come from elsewhere are taken: what is typed is not yet among them.
  React.useEffect(() => {
    setRows(old => (sameValues(valuesOf(old), props.values) ? old : rowsOf(props.values)));
  }, [props.values]);
  React.useEffect(() => {
    if (toFocus.current) {
      node.current!.querySelector<HTMLElement>(toFocus.current)?.focus();
      toFocus.current = '';
    }
  }, [rows]);
  const isIncomplete = rows.some((_, index) => problemOf(rows, index) !== null);
  React.useEffect(() => {
    onIncomplete(isIncomplete);
    return () => onIncomplete(false);
    // The function is another one each time, and does the same.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [isIncomplete]);
  const change = (changed: IRow[]) => {
    setRows(changed);
    props.onChange(valuesOf(changed));
  };
  const set = (index: number, row: Partial<IRow>) =>
    change(rows.map((old, at) => (at === index ? { ...old, ...row } : old)));
  return (
    <fieldset ref={node} className="jp-NbExec-list jp-NbExec-free">
      <legend>{trans.__('Values')}</legend>
      {rows.map((row, index) => {
        const problem = problemOf(rows, index);
        const refused = props.refusals[row.name] ?? [];
        const problems = problem === null ? refused : [words(problem, trans)];
        const id = `nbexec-free-${index}`;
        return (
          <div key={index} className="jp-NbExec-item">
            <input
              className="jp-mod-styled"
              aria-label={trans.__('Name %1', index + 1)}
              aria-invalid={problem !== null || undefined}
              aria-describedby={id}
              placeholder={trans.__('name')}
              value={row.name}
              spellCheck={false}
              onChange={event => set(index, { name: event.target.value })}
            />
            <Text
              aria-label={trans.__('Value %1', index + 1)}
              aria-invalid={(problem === null && refused.length > 0) || undefined}
              aria-describedby={id}
              placeholder={trans.__('JSON, or text')}
              value={row.text}
              spellCheck={false}
              onChange={text => set(index, { text })}
              trans={trans}
            />
            <IconButton
              icon={deleteIcon}
              label={trans.__('Remove value %1', index + 1)}
              onClick={() => {
                toFocus.current = ':scope > .jp-NbExec-iconButton';
                change(rows.filter((_, at) => at !== index));
              }}
            />
            <div id={id} className="jp-NbExec-refusal" role="alert">
              {problems.join(' ')}
            </div>
          </div>
        );
      })}
      <IconButton
        icon={addIcon}
        label={trans.__('Add a value')}
        onClick={() => {
          toFocus.current = `.jp-NbExec-item:nth-of-type(${rows.length + 1}) input`;
          setRows([...rows, { name: '', text: '' }]);
        }}
      />
    </fieldset>
  );
}

/** Why a row is no value. */
type Problem = 'nameless' | 'twice';

function problemOf(rows: IRow[], index: number): Problem | null {
  const { name, text } = rows[index];
  if (!name) {
    return text ? 'nameless' : null;
  }
  return rows.findIndex(row => row.name === name) < index ? 'twice' : null;
}

function words(problem: Problem, trans: TranslationBundle): string {
  return problem === 'nameless' ? trans.__('Give it a name.') : trans.__('This name is given twice.');
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
