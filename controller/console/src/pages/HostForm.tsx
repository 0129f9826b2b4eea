import { Button, Group, Modal, SegmentedControl, Stack, TextInput } from '@mantine/core'
import { useForm } from '@mantine/form'
import { useMutation, useQueryClient } from '@tanstack/react-query'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { asProblem } from '../api/problem'
import type { NodeFiles as Files } from '../api/types'
import { fieldErrors } from '../ui/errors'
import { ErrorPanel } from '../ui/feedback'
import { NodeFiles } from './NodeFiles'

const NAME = /^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/

/** The names and addresses of a text with commas or blanks between them. */
export const addresses = (text: string) => text.split(/[\s,]+/).filter(Boolean)

/** How a controller reaches a node by one of its names. */
export const nodeUri = (name: string) => `node://${name.includes(':') ? `[${name}]` : name}`

/** The name a controller reaches a node by: the other way round. */
export const nodeHost = (uri: string) =>
  uri.replace(/^node:\/\//, '').replace(/\/$/, '').replace(/:\d+$/, '').replace(/^\[|\]$/g, '')

/** Adds a hypervisor host: one that has a node, which gets its files first, or the controller's own machine. */
export function HostForm({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const { t } = useTranslation()
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      title={t('host.add')}
      size="lg"
      // The node's files are shown once: a stray click beside them must not throw them away.
      closeOnClickOutside={false}
      closeButtonProps={{ 'aria-label': t('common.close') }}
    >
      <Form onClose={onClose} />
    </Modal>
  )
}

function Form({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const form = useForm({
    initialValues: { kind: 'node', name: '', names: '', uri: 'qemu:///system' },
    validate: {
      name: (value) => (NAME.test(value.trim()) ? null : t('host.badName')),
      names: (value, all) => (all.kind !== 'node' || addresses(value).length > 0 ? null : t('host.needAddress')),
      uri: (value, all) => (all.kind === 'node' || value.includes('://') ? null : t('host.badUri')),
    },
  })
  const create = useMutation({
    mutationFn: async (values: typeof form.values): Promise<Files | undefined> => {
      const name = values.name.trim()
      const names = addresses(values.names)
      // The files first: their names are judged before anything is written down.
      const files = values.kind === 'node' ? await calls.issueNode(name, names) : undefined
      await calls.createHost(name, values.kind === 'node' ? nodeUri(names[0] ?? '') : values.uri.trim())
      return files
    },
    onSuccess: (files) => {
      void client.invalidateQueries({ queryKey: keys.hosts })
      if (!files) onClose()
    },
    onError: (error) => form.setErrors(fieldErrors(t, asProblem(error))),
  })
  if (create.data) {
    return (
      <Stack>
        <NodeFiles name={form.values.name.trim()} files={create.data} />
        <Group justify="flex-end">
          <Button onClick={onClose}>{t('common.close')}</Button>
        </Group>
      </Stack>
    )
  }
  return (
    <form noValidate onSubmit={form.onSubmit((values) => create.mutate(values))}>
      <Stack>
        <SegmentedControl
          aria-label={t('host.kind')}
          data={[
            { value: 'node', label: t('host.kindNode') },
            { value: 'own', label: t('host.kindOwn') },
          ]}
          {...form.getInputProps('kind')}
        />
        <TextInput
          label={t('host.name')}
          description={t('host.nameHint')}
          withAsterisk
          data-autofocus
          autoComplete="off"
          {...form.getInputProps('name')}
        />
        {form.values.kind === 'node' ? (
          <TextInput
            label={t('host.names')}
            description={t('host.namesHint')}
            withAsterisk
            autoComplete="off"
            placeholder="may-2.hanoi.example, 10.0.0.12"
            {...form.getInputProps('names')}
          />
        ) : (
          <TextInput label={t('host.address')} withAsterisk autoComplete="off" {...form.getInputProps('uri')} />
        )}
        {create.isError && <ErrorPanel error={create.error} title={t('host.addFailed')} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            {t('common.cancel')}
          </Button>
          <Button type="submit" loading={create.isPending}>
            {t('host.add')}
          </Button>
        </Group>
      </Stack>
    </form>
  )
}
