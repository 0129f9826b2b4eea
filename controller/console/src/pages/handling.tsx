// What incidents and support calls have in common: notes, and handing over to who has to act.
import { Button, Group, NumberInput, Select, Stack, Textarea } from '@mantine/core'
import { type QueryKey, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import type { Party } from '../api/types'
import { ErrorPanel } from '../ui/feedback'
import { useOnce } from '../ui/once'

export const PARTIES: Party[] = ['site', 'carrier', 'data_centre', 'vdi', 'service_owner', 'support']

/** To whom, and how many minutes they have. */
export function PartyFields(props: {
  party: Party
  minutes: number
  /** The dialog begins here. */
  first?: boolean
  onParty: (party: Party) => void
  onMinutes: (minutes: number) => void
}) {
  const { t } = useTranslation()
  return (
    <>
      <Select
        label={t('incident.party')}
        data={PARTIES.map((value) => ({ value, label: t(`incident.parties.${value}`) }))}
        value={props.party}
        onChange={(value) => value && props.onParty(value as Party)}
        allowDeselect={false}
        data-autofocus={props.first}
      />
      <NumberInput
        label={t('incident.answerMinutes')}
        min={1}
        max={20160}
        clampBehavior="none"
        allowDecimal={false}
        value={props.minutes}
        onChange={(value) => props.onMinutes(Number(value))}
      />
    </>
  )
}

/** A note that is emptied when it was kept, and stays as it is when it was not; `shown` is what shows it afterwards. */
export function NewNote({ hint, save, shown }: { hint?: string; save: (text: string) => Promise<unknown>; shown: QueryKey }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [text, setText] = useState('')
  const [error, setError] = useState<unknown>()
  const [busy, once] = useOnce()
  const submit = async () => {
    try {
      await save(text)
      setText('')
      setError(undefined)
      await client.invalidateQueries({ queryKey: shown })
    } catch (failure) {
      setError(failure)
    }
  }
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault()
        void once(submit)
      }}
    >
      <Stack className="card" p="lg" gap="sm">
        <Textarea
          label={t('incident.note')}
          description={hint}
          autosize
          minRows={2}
          maxLength={2000}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
        />
        {error !== undefined && <ErrorPanel error={error} />}
        <Group justify="flex-end">
          <Button type="submit" variant="default" loading={busy} disabled={!text.trim()}>
            {t('incident.addNote')}
          </Button>
        </Group>
      </Stack>
    </form>
  )
}
