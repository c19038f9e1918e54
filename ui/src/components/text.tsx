import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

/** Lines that are shown at a time. */
const MOST = 12;

export interface ITextProps extends Omit<React.TextareaHTMLAttributes<HTMLTextAreaElement>, 'onChange'> {
  value: string;
  /** Whether lines are what it is made of, even while it has only one. */
  isLong?: boolean;
  onChange: (text: string) => void;
  trans: TranslationBundle;
}

/** A text of as many lines as it has: one line looks like any other input, and no line is ever joined to another. */
export function Text(props: ITextProps): JSX.Element {
  const { value, isLong, onChange, trans, ...attributes } = props;
  const isOneLine = !isLong && !value.includes('\n');
  return (
    <textarea
      {...attributes}
      className="jp-NbExec-text jp-mod-styled"
      title={isOneLine ? trans.__('Shift Enter: another line') : undefined}
      rows={Math.min(MOST, value.split('\n').length)}
      value={value}
      onChange={event => onChange(withEndingsOf(value, event.target.value))}
      onKeyDown={event => {
        // Whoever presses Enter after a word wants no line more in it.
        const { key, shiftKey, nativeEvent } = event;
        if (isOneLine && key === 'Enter' && !shiftKey && !nativeEvent.isComposing) {
          event.preventDefault();
        }
      }}
    />
  );
}

/** A browser knows one end of a line only: one that is of another kind is kept. */
function withEndingsOf(old: string, text: string): string {
  return old.includes('\r\n') ? text.replace(/\r?\n/g, '\r\n') : text;
}
