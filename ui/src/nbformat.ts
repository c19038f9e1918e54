import type { IOutput } from '@jupyterlab/nbformat';
import type { ICellOutput, IRunError } from './tokens';

/** Add an output as the notebook format has it: text that goes on is joined. */
export function append(outputs: IOutput[], output: IOutput): void {
  const last = outputs[outputs.length - 1];
  if (last?.output_type === 'stream' && output.output_type === 'stream' && last.name === output.name) {
    outputs[outputs.length - 1] = { ...last, text: textOf(last.text) + textOf(output.text) } as IOutput;
    return;
  }
  outputs.push(output);
}

/** The text of a string of several lines, however it is kept. */
export function textOf(text: unknown): string {
  return Array.isArray(text) ? text.join('') : String(text ?? '');
}

/** An output without what the service adds to it. */
export function bare(output: ICellOutput): IOutput {
  const { cell: _cell, cell_id: _id, display_id: _display, ...rest } = output;
  return rest as IOutput;
}

/** An error as the output that it would have been. */
export function asOutput(error: IRunError): ICellOutput {
  const { cell, cell_id, traceback } = error;
  const [ename, evalue] = [error.ename ?? error.code, error.evalue ?? error.message];
  return { output_type: 'error', ename, evalue, traceback, cell, cell_id } as ICellOutput;
}

/** About how many characters an output has. */
export function sizeOf(output: IOutput): number {
  const bundle = (output.data ?? {}) as { [type: string]: unknown };
  const parts = [output.text, output.traceback, ...Object.values(bundle)];
  return parts.reduce<number>((size, part) => {
    if (part === undefined) {
      return size;
    }
    return size + (typeof part === 'string' ? part.length : JSON.stringify(part, stringified).length);
  }, 0);
}

function stringified(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `${value}` : value;
}

/** What renderers can draw: they know no `bigint`. */
export function printable(output: IOutput): IOutput {
  const data = output.data as { [type: string]: unknown } | undefined;
  if (!data || !Object.values(data).some(value => typeof value === 'object')) {
    return output;
  }
  return JSON.parse(
    JSON.stringify(output, (_, value) => (typeof value === 'bigint' ? `${value}` : value))
  ) as IOutput;
}
