import type { Call } from '../api/types'
import type { Tone } from '../ui/state'

/** As it is read out: two groups of three. */
export const grouped = (code: string) => code.replace(/^(\d{3})(\d{3})$/, '$1 $2')

export const callTones: Record<Call['state'], Tone> = {
  open: 'bad',
  taken: 'busy',
  handed_over: 'warn',
  solved: 'ok',
  closed: 'idle',
}
