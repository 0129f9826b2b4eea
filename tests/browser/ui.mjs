// Fast checks of the console against the mock API: every page, its states, keys, and axe.
//   node tests/browser/ui.mjs        (needs controller/console/dist)
import { Steps } from './lib/steps.mjs'
import { startMock } from './mock/server.mjs'
import { narrow } from './ui/narrow.mjs'
import { officer } from './ui/officer.mjs'
import { operator } from './ui/operator.mjs'
import { signInPage } from './ui/sign-in.mjs'
import { support } from './ui/support.mjs'

const steps = new Steps()
const mock = await startMock()
const { url, password, world } = mock
const at = { steps, mock, url, password, world, as: (username) => ({ username, password }) }

// In this order: each finds the world as the one before left it.
await signInPage(at)
await operator(at)
await support(at)
await officer(at)
await narrow(at)

await mock.close()
process.exit(steps.finish())
