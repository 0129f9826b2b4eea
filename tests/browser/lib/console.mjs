// What a person does in the console, in words the stories use. Vietnamese texts, as staff see them.
import { until } from './steps.mjs'

export async function signIn(page, url, { username, password }) {
  await page.goto(`${url}/console/`)
  await page.getByLabel('Tên đăng nhập').fill(username)
  await page.getByLabel('Mật khẩu', { exact: true }).fill(password)
  await page.getByRole('button', { name: 'Đăng nhập', exact: true }).click()
  await page.getByRole('banner').waitFor()
}

export async function signOut(page) {
  await page.getByRole('banner').getByRole('button').last().click()
  await page.getByRole('menuitem', { name: 'Đăng xuất' }).click()
  await page.getByRole('button', { name: 'Đăng nhập', exact: true }).waitFor()
}

export async function goTo(page, name) {
  const link = page.getByRole('navigation').getByRole('link', { name, exact: true })
  if (!(await link.isVisible())) await page.getByRole('button', { name: 'Danh mục' }).click()
  await link.click()
  await page.getByRole('heading', { level: 1, name, exact: true }).waitFor()
}

/** How many different colours the desktop's canvas shows, and a fingerprint of its pixels. */
export async function screen(page) {
  return page.evaluate(() => {
    const canvas = document.querySelector('[data-testid=screen] canvas')
    if (!canvas || !canvas.width || !canvas.height) return { colours: 0, print: 0, width: 0, height: 0 }
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    const colours = new Set()
    let print = 0
    for (let i = 0; i < data.length; i += 4) {
      const rgb = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2]
      if (colours.size < 4096) colours.add(rgb)
      print = (print * 31 + rgb) | 0
    }
    return { colours: colours.size, print, width: canvas.width, height: canvas.height }
  })
}

export async function viewerPhase(page) {
  return page.locator('.viewer').getAttribute('data-phase')
}

/** Waits for a live picture with at least `least` colours. */
export async function waitForScreen(page, least, timeout) {
  return until(
    `a desktop picture with ${least} colours`,
    async () => {
      const seen = await screen(page)
      return seen.colours >= least ? seen : null
    },
    timeout,
    500,
  )
}
