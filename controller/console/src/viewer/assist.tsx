import { Button, Group, Stack, Text } from '@mantine/core'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import type { Assist } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { useNow } from '../ui/time'

/** Seconds until a time of the controller. */
export function secondsUntil(at: string, now: Date): number {
  return Math.max(0, Math.ceil((Date.parse(at) - now.getTime()) / 1000))
}

/** Tells the officer who watches, or asks to; the way out is always there. */
export function AssistNote({ sessionId, assist, changed }: { sessionId: string; assist: Assist; changed?: () => void }) {
  const { t } = useTranslation()
  const format = useFormat()
  const now = useNow(1000)
  const [failed, setFailed] = useState(false)
  // What was pressed stands at once; the controller's word replaces it.
  const [answered, setAnswered] = useState('')
  const name = assist.supporter.display_name
  const stage = `${assist.id} ${assist.state} ${assist.control} ${assist.control_due_at ?? ''}`
  const act = async (call: () => Promise<unknown>) => {
    setFailed(false)
    try {
      await call()
      setAnswered(stage)
      changed?.()
    } catch {
      setFailed(true)
    }
  }
  const answer = (question: 'watch' | 'control', allow: boolean) =>
    act(() => calls.answerAssist(sessionId, assist.id, question, allow))
  const controlLeft = assist.control === 'asked' && assist.control_due_at ? secondsUntil(assist.control_due_at, now) : 0
  const asks = assist.state === 'asked' && answered !== stage
  const asksControl = assist.state === 'active' && controlLeft > 0 && answered !== stage
  const sentence = {
    asked: 'assist.officer.asks',
    allowed: 'assist.officer.soon',
    active: assist.control === 'granted' ? 'assist.officer.controlling' : 'assist.officer.watching',
    ended: 'assist.over',
  }[assist.state]
  return (
    <div className="assist-note" role={asks || asksControl ? 'alert' : 'status'} data-testid="assist" data-state={assist.state}>
      <Stack gap={6}>
        <Group gap="sm" justify="space-between">
          <Text size="sm" fw={650}>
            {t(sentence, { name })}
          </Text>
          {!asks && (
            <Button size="compact-sm" color="red.9" onClick={() => void act(() => calls.endAssist(sessionId))}>
              {t('assist.officer.stop')}
            </Button>
          )}
        </Group>
        <Text size="sm">{t('assist.officer.why', { reason: assist.reason })}</Text>
        {asks && (
          <Group gap="sm">
            <Text size="sm">{t('assist.left', { left: format.duration(secondsUntil(assist.due_at, now)) })}</Text>
            <Button size="compact-sm" variant="white" onClick={() => void answer('watch', true)}>
              {t('assist.officer.allow')}
            </Button>
            <Button size="compact-sm" color="red.9" onClick={() => void answer('watch', false)}>
              {t('assist.officer.refuse')}
            </Button>
          </Group>
        )}
        {asksControl && (
          <Group gap="sm">
            <Text size="sm">
              {t('assist.officer.asksControl', { name })} {t('assist.left', { left: format.duration(controlLeft) })}
            </Text>
            <Button size="compact-sm" variant="white" onClick={() => void answer('control', true)}>
              {t('assist.officer.allowControl')}
            </Button>
            <Button size="compact-sm" variant="white" onClick={() => void answer('control', false)}>
              {t('assist.officer.refuseControl')}
            </Button>
          </Group>
        )}
        {failed && (
          <Text size="sm" role="alert">
            {t('assist.officer.failed')}
          </Text>
        )}
      </Stack>
    </div>
  )
}
