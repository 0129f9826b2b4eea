import { Button, Checkbox, Group, Modal, NumberInput, Stack, Text } from '@mantine/core'
import { useQueryClient } from '@tanstack/react-query'
import { type FormEvent, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { asProblem } from '../api/problem'
import type { Site, SiteLine } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { fieldErrors } from '../ui/errors'
import { ErrorPanel } from '../ui/feedback'
import { done } from '../ui/notify'
import { typed } from '../ui/number'
import { Facts } from '../ui/page'

/** What a line may carry, kbit/s. */
const LEAST = 64
const MOST = 10_000_000

/** kbit/s as people say it. */
export function useRate() {
  const { t } = useTranslation()
  const format = useFormat()
  return (kbit: number | null | undefined) => {
    if (kbit === null || kbit === undefined) return t('site.line.unknown')
    if (kbit < 1000) return `${format.number(kbit)} kbit/s`
    return `${format.number(kbit / 1000, kbit % 1000 ? 1 : 0)} Mbit/s`
  }
}

/** How much of a line's budget is in use, as a bar with its words beside it. */
export function LineUse({ line }: { line: SiteLine }) {
  const { t } = useTranslation()
  const rate = useRate()
  const full = line.budget_kbit ? Math.min(100, (100 * line.used_kbit) / line.budget_kbit) : 0
  return (
    <Stack gap={4}>
      <Text size="sm">
        {line.budget_kbit
          ? t('site.line.useOf', { used: rate(line.used_kbit), budget: rate(line.budget_kbit), count: line.sessions })
          : t('site.line.use', { used: rate(line.used_kbit), count: line.sessions })}
      </Text>
      {line.budget_kbit && (
        <span className="segment-track" aria-hidden="true">
          <span className="segment-bar" style={{ width: `${Math.max(1, full)}%` }} />
        </span>
      )}
    </Stack>
  )
}

/** The line of one site: what it carries, and what sessions use of it. */
export function SiteLineModal({ site, operator, onClose }: { site: Site; operator: boolean; onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const rate = useRate()
  const [down, setDown] = useState<number | string>(site.line.down_kbit ?? '')
  const [metered, setMetered] = useState(site.line.metered)
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const [tried, setTried] = useState(false)
  const kbit = typed(down)
  const wrong = kbit !== undefined && !(Number.isInteger(kbit) && kbit >= LEAST && kbit <= MOST)
  const faults = error === undefined ? {} : fieldErrors(t, asProblem(error))
  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setTried(true)
    if (wrong) return
    setBusy(true)
    setError(undefined)
    try {
      await calls.setSiteLine(site.code, kbit ?? null, metered)
      await client.invalidateQueries({ queryKey: ['sites'] })
      done(t('site.line.saved'))
      onClose()
    } catch (failure) {
      setError(failure)
    } finally {
      setBusy(false)
    }
  }
  return (
    <Modal opened onClose={onClose} title={t('site.line.title', { site: site.name })} closeButtonProps={{ 'aria-label': t('common.close') }}>
      <form onSubmit={(event) => void submit(event)}>
        <Stack>
          <Facts
            rows={[
              [t('site.line.down'), rate(site.line.down_kbit)],
              [t('site.line.budget'), site.line.budget_kbit ? rate(site.line.budget_kbit) : t('site.line.free')],
            ]}
          />
          <LineUse line={site.line} />
          {operator && (
            <NumberInput
              label={t('site.line.set')}
              description={t('site.line.hint')}
              placeholder={t('site.line.unknown')}
              suffix=" kbit/s"
              thousandSeparator=" "
              value={down}
              onChange={setDown}
              min={LEAST}
              max={MOST}
              clampBehavior="none"
              allowDecimal={false}
              error={tried && wrong ? t('errors.S-213') : faults.down_kbit}
            />
          )}
          {operator ? (
            <Checkbox
              label={t('site.line.metered')}
              description={t('site.line.meteredHint')}
              checked={metered}
              onChange={(event) => setMetered(event.currentTarget.checked)}
            />
          ) : (
            metered && <Text size="sm">{t('site.line.metered')}</Text>
          )}
          {error !== undefined && !faults.down_kbit && <ErrorPanel error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              {t('common.close')}
            </Button>
            {operator && (
              <Button type="submit" loading={busy}>
                {t('site.line.save')}
              </Button>
            )}
          </Group>
        </Stack>
      </form>
    </Modal>
  )
}
