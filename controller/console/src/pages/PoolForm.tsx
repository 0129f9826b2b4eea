import { Button, Group, Modal, NumberInput, Select, SimpleGrid, Stack, Switch, Text, TextInput } from '@mantine/core'
import { useForm } from '@mantine/form'
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { asProblem } from '../api/problem'
import type { Pool } from '../api/types'
import { fieldErrors } from '../ui/errors'
import { ErrorPanel } from '../ui/feedback'
import { SiteSelect } from '../ui/SiteSelect'

/** As many desktops as a pool may have. */
export const MOST = 5000

/** Asks for a new pool; what the controller refuses shows at its field. */
export function PoolForm({ opened, onClose, onCreated }: { opened: boolean; onClose: () => void; onCreated: (pool: Pool) => void }) {
  const { t } = useTranslation()
  return (
    <Modal opened={opened} onClose={onClose} title={t('pool.create')} size="lg" closeButtonProps={{ 'aria-label': t('common.close') }}>
      <Form onClose={onClose} onCreated={onCreated} />
    </Modal>
  )
}

function Form({ onClose, onCreated }: { onClose: () => void; onCreated: (pool: Pool) => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const images = useQuery({ queryKey: keys.images, queryFn: calls.images })
  const usable = (images.data?.items ?? []).filter((image) => image.state === 'ready')
  const form = useForm({
    initialValues: {
      name: '',
      site_code: '',
      image_id: '',
      size: 2 as number | '',
      vcpus: 2 as number | '',
      memory_mib: 768 as number | '',
      persistent: true,
      start: true,
    },
    validate: {
      name: (value) => (/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/.test(value.trim()) ? null : t('pool.badName')),
      site_code: (value) => (value ? null : t('pool.needSite')),
      image_id: (value) => (value ? null : t('pool.needImage')),
      size: (value) => (Number.isInteger(value) && Number(value) >= 0 && Number(value) <= MOST ? null : t('pool.badSize', { most: MOST })),
      vcpus: (value) => (Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 64 ? null : t('pool.badCpus')),
      memory_mib: (value) => (Number.isInteger(value) && Number(value) >= 256 ? null : t('pool.badMemory')),
    },
  })
  const create = useMutation({
    mutationFn: calls.createPool,
    onSuccess: (pool) => {
      void client.invalidateQueries({ queryKey: keys.pools })
      onCreated(pool)
    },
    onError: (error) => form.setErrors(fieldErrors(t, asProblem(error))),
  })
  return (
    <form
      noValidate
      onSubmit={form.onSubmit((values) =>
        create.mutate({
          name: values.name.trim(),
          site_code: values.site_code,
          image_id: values.image_id,
          size: Number(values.size),
          vcpus: Number(values.vcpus),
          memory_mib: Number(values.memory_mib),
          persistent: values.persistent,
          start: values.start,
        }),
      )}
    >
      <Stack>
        <TextInput label={t('pool.name')} withAsterisk data-autofocus autoComplete="off" {...form.getInputProps('name')} />
        <SiteSelect
          required
          value={form.values.site_code}
          onChange={(code) => form.setFieldValue('site_code', code)}
          error={form.errors.site_code}
        />
        <Select
          label={t('pool.image')}
          withAsterisk
          data={usable.map((image) => ({ value: image.id, label: `${image.name} ${image.version}` }))}
          nothingFoundMessage={t('image.none')}
          placeholder={images.isSuccess && usable.length === 0 ? t('image.none') : undefined}
          {...form.getInputProps('image_id')}
        />
        <SimpleGrid cols={{ base: 1, xs: 3 }}>
          <NumberInput label={t('pool.size')} withAsterisk min={0} max={MOST} clampBehavior="none" {...form.getInputProps('size')} />
          <NumberInput label={t('pool.vcpus')} min={1} max={64} clampBehavior="none" {...form.getInputProps('vcpus')} />
          <NumberInput label={t('pool.memory')} min={256} step={256} clampBehavior="none" {...form.getInputProps('memory_mib')} />
        </SimpleGrid>
        <Switch label={t('pool.persistent')} description={t('pool.persistentHint')} {...form.getInputProps('persistent', { type: 'checkbox' })} />
        <Switch label={t('pool.start')} {...form.getInputProps('start', { type: 'checkbox' })} />
        {create.isError && <ErrorPanel error={create.error} title={t('pool.createFailed')} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            {t('common.cancel')}
          </Button>
          <Button type="submit" loading={create.isPending}>
            {t('pool.create')}
          </Button>
        </Group>
        <Text size="xs" className="quiet">
          {t('pool.createHint')}
        </Text>
      </Stack>
    </form>
  )
}
