import { useTranslation } from 'react-i18next'

export type Tone = 'ok' | 'busy' | 'warn' | 'bad' | 'idle'

const tones: Record<string, Tone> = {
  // desktops
  planned: 'busy', creating: 'busy', defined: 'busy', starting: 'busy', booting: 'busy', running: 'ok',
  stopping: 'busy', stopped: 'idle', rebuilding: 'busy', failed: 'bad', deleting: 'busy',
  // hosts
  connecting: 'busy', up: 'ok', down: 'bad', disabled: 'idle',
  // images
  checking: 'busy', ready: 'ok', retired: 'idle',
  // endpoints and their verdicts
  online: 'ok', silent: 'bad', never: 'idle', revoked: 'idle', quarantined: 'bad', ok: 'ok', warn: 'warn', crit: 'bad', unknown: 'idle',
  // sessions
  waiting: 'busy', active: 'ok', disconnected: 'warn', ended: 'idle',
  // gateways
  live: 'ok', draining: 'warn',
  // audit and users
  denied: 'warn', error: 'bad', locked: 'warn', enabled: 'ok', done: 'ok',
}

export function toneOf(state: string): Tone {
  return tones[state] ?? 'idle'
}

/** A state in words with a coloured dot; never colour alone. */
export function StatePill({ group, state, tone }: { group: string; state: string; tone?: Tone }) {
  const { t } = useTranslation()
  return (
    <span className={`pill tone-${tone ?? toneOf(state)}`} data-state={state}>
      {t(`${group}.${state}`, { defaultValue: state })}
    </span>
  )
}
