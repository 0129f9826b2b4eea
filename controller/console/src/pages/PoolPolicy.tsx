import { Button, Group, Modal, NumberInput, Select, SimpleGrid, Stack } from '@mantine/core'
import { useQueryClient } from '@tanstack/react-query'
import { type FormEvent, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { asProblem } from '../api/problem'
import type { Pool, PoolPolicy } from '../api/types'
import { ErrorPanel } from '../ui/feedback'
import { fieldErrors } from '../ui/errors'
import { done } from '../ui/notify'
import { typed } from '../ui/number'

const NUMBERS = [
  ['idle_minutes', 'idle'],
  ['grace_minutes', 'grace'],
  ['longest_minutes', 'longest'],
  ['kbit', 'kbit'],
] as const
const CONSENTS = ['ask', 'notify', 'none'] as const
const SWITCHES = ['clipboard', 'audio', 'usb'] as const

/** The pool's own limits for sessions to come; an empty field is as configured. */
export function PolicyForm({ pool, opened, onClose }: { pool: Pool; opened: boolean; onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [policy, setPolicy] = useState<PoolPolicy>(pool.policy)
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const faults = error === undefined ? {} : fieldErrors(t, asProblem(error))
  const submit = async (event: FormEvent) => {
    event.preventDefault()
    setBusy(true)
    setError(undefined)
    try {
      const fresh = await calls.setPoolPolicy(pool.id, policy)
      client.setQueryData(keys.pool(pool.id), fresh)
      done(t('pool.policy.saved'))
      onClose()
    } catch (failure) {
      setError(failure)
    } finally {
      setBusy(false)
    }
  }
  return (
    <Modal opened={opened} onClose={onClose} title={t('pool.policy.title')} closeButtonProps={{ 'aria-label': t('common.close') }}>
      <form onSubmit={(event) => void submit(event)}>
        <Stack>
          <SimpleGrid cols={{ base: 1, xs: 2 }}>
            {NUMBERS.map(([field, label]) => (
              <NumberInput
                key={field}
                label={t(`pool.policy.${label}`)}
                placeholder={t('pool.policy.usual')}
                value={policy[field] ?? ''}
                onChange={(value) => setPolicy({ ...policy, [field]: typed(value) })}
                min={1}
                clampBehavior="none"
                allowDecimal={false}
                error={faults[field]}
              />
            ))}
            {SWITCHES.map((field) => (
              <Select
                key={field}
                label={t(`pool.policy.${field}`)}
                placeholder={t('pool.policy.usual')}
                clearable
                data={[
                  { value: 'yes', label: t('pool.policy.yes') },
                  { value: 'no', label: t('pool.policy.no') },
                ]}
                value={policy[field] === undefined || policy[field] === null ? null : policy[field] ? 'yes' : 'no'}
                onChange={(value) => setPolicy({ ...policy, [field]: value === null ? undefined : value === 'yes' })}
              />
            ))}
            <Select
              label={t('pool.policy.assist')}
              placeholder={t('pool.policy.usual')}
              clearable
              data={CONSENTS.map((value) => ({ value, label: t(`pool.policy.consent.${value}`) }))}
              value={policy.assist ?? null}
              onChange={(value) => setPolicy({ ...policy, assist: CONSENTS.find((one) => one === value) ?? null })}
            />
          </SimpleGrid>
          {error !== undefined && <ErrorPanel error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              {t('common.cancel')}
            </Button>
            <Button type="submit" loading={busy}>
              {t('pool.policy.save')}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  )
}
