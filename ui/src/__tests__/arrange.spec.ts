import { sizesOf } from '../arrange';

describe('the heights of the sections', () => {
  it('are what each needs, and the result has the rest', () => {
    expect(sizesOf([200, 50, 150, 0], 1000, false)).toEqual([200, 522, 150, 0]);
  });

  it('are less than they need where there is too little room', () => {
    const [parameters, result, call] = sizesOf([2000, 50, 1000, 0], 1000, true);
    expect(result).toBeGreaterThanOrEqual(0.4 * (1000 - 4 * 32));
    expect(Math.abs(parameters - 2 * call)).toBeLessThanOrEqual(1);
    expect(parameters + result + call).toBeLessThanOrEqual(1000 - 4 * 32 + 1);
  });

  it('leave out what is closed', () => {
    expect(sizesOf([0, 0, 150, 80], 1000, true)).toEqual([0, 0, 150, 80]);
  });
});
