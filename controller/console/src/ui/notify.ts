import { notifications } from '@mantine/notifications'
import i18next from 'i18next'

const close = () => ({ 'aria-label': i18next.t('common.close') })

/** Says that something asked for has been taken in hand. */
export function done(message: string): void {
  notifications.show({ message, color: 'teal', autoClose: 4000, closeButtonProps: close() })
}

/** Says that something asked for was refused; stays until it is closed. */
export function refused(message: string): void {
  notifications.show({ message, color: 'red', autoClose: false, role: 'alert', closeButtonProps: close() })
}
