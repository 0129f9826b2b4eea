// The browser tests have no packages of their own: they borrow the console's.
import { createRequire } from 'node:module'

export const consoleRequire = createRequire(new URL('../../../controller/console/package.json', import.meta.url))
