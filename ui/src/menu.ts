import { CommandRegistry } from '@lumino/commands';
import { Menu } from '@lumino/widgets';

export interface IMenuItem {
  label: string;
  execute: () => unknown;
}

/** A menu that is there until it is closed. */
export function openMenu(items: IMenuItem[], x: number, y: number): void {
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
