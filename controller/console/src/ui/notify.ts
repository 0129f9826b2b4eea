import { notifications } from '@mantine/notifications'

export function done(message: string): void {
  notifications.show({ message, color: 'teal', autoClose: 4000 })
}
