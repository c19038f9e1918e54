import { CommandRegistry } from '@lumino/commands';
import { Menu } from '@lumino/widgets';

export interface IMenuItem {
  label: string;
  execute: () => unknown;
}

/** A menu that is there until it is closed; whoever opened it has the focus again, if nothing else takes it. */
export function openMenu(items: IMenuItem[], x: number, y: number): void {
  const commands = new CommandRegistry();
  const menu = new Menu({ commands });
  const opener = document.activeElement as HTMLElement | null;
  items.forEach((item, index) => {
    const id = `${index}`;
    commands.addCommand(id, { label: item.label, execute: item.execute });
    menu.addItem({ command: id });
  });
  menu.aboutToClose.connect(() => {
    setTimeout(() => {
      menu.dispose();
      if (document.activeElement === null || document.activeElement === document.body) {
        opener?.focus();
      }
    });
  });
  menu.open(x, y);
}
