// The three roles' stories against a running controller and a real desktop.
//   TRAM_URL=https://127.0.0.1:8443 TRAM_ACCOUNTS=accounts.json [TRAM_SHOTS=folder] node tests/browser/story.mjs
// TRAM_STORY=officer,operator,support picks some; TRAM_AGENT_PID names an agent to end, so that its silence shows.
// accounts.json: {"operator": {"username", "password"}, "support": {…}, "officer": {…}}
import { readFileSync } from 'node:fs'
import { openBrowser } from './lib/browser.mjs'
import { goTo, signIn, signOut, viewerPhase, waitForScreen } from './lib/console.mjs'
import * as guest from './lib/guest.mjs'
import { check, shoot, Steps, until } from './lib/steps.mjs'

const url = (process.env.TRAM_URL ?? 'https://127.0.0.1:8443').replace(/\/$/, '')
const accounts = JSON.parse(readFileSync(process.env.TRAM_ACCOUNTS ?? 'accounts.json', 'utf8'))
const only = process.env.TRAM_STORY ?? ''
const BOOT_MS = Number(process.env.TRAM_BOOT_SECONDS ?? 420) * 1000
// A booted desktop shows at least this many colours; a text console or a blank screen does not.
const COLOURS = Number(process.env.TRAM_COLOURS ?? 100)
const SHEET = '/home/canbo/van-ban.txt'
const TELEX = 'tieengs vieejt '
const TYPED = 'tiếng việt'

const steps = new Steps()
const wants = (role) => !only || only.split(',').includes(role)

/** A GET with the page's own cookie. */
const api = (page, path) => page.evaluate(async (p) => (await fetch(`/api/v1${p}`)).json(), path)

/** Pixels of the desktop's picture that differ from the one remembered under `window.before`. */
async function changedPixels(page) {
  return page.evaluate(() => {
    const canvas = document.querySelector('[data-testid=screen] canvas')
    // Without the bottom bar, whose clock changes by itself.
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, Math.floor(canvas.height * 0.9))
    const before = window.before
    window.before = data
    if (!before || before.length !== data.length) return -1
    let changed = 0
    for (let i = 0; i < data.length; i += 4) {
      if (data[i] !== before[i] || data[i + 1] !== before[i + 1] || data[i + 2] !== before[i + 2]) changed += 1
    }
    return changed
  })
}

async function withBrowser(options, run) {
  const browser = await openBrowser(url, options)
  steps.page = browser.page
  try {
    await run(browser.page, browser)
    await steps.step('no request left for another address, no page error, no policy breach', async () =>
      check(browser.faults.length === 0, browser.faults.join('\n')))
  } finally {
    steps.page = null
    await browser.close()
  }
}

async function officer(page, browser) {
  let session
  let typed = false
  const good =
    (await steps.step('officer: signs in and sees one big button', async () => {
      await signIn(page, url, accounts.officer)
      await page.getByRole('button', { name: /^(Mở|Quay lại) máy trạm ảo$/ }).waitFor()
      await shoot(page, 'officer-home-vi')
    })) &&
    (await steps.step('officer: one press brings the real desktop, with honest progress until then', async () => {
      await page.getByRole('button', { name: /^(Mở|Quay lại) máy trạm ảo$/ }).click()
      await page.locator('.viewer').waitFor()
      await shoot(page, 'officer-opening-vi')
      await until('the screen to be connected', async () => {
        const phase = await viewerPhase(page)
        check(phase !== 'failed' && phase !== 'closed', `the viewer says ${phase}: ${await page.locator('.viewer-over').innerText().catch(() => '')}`)
        return phase === 'open'
      }, BOOT_MS, 500)
      const seen = await waitForScreen(page, COLOURS, BOOT_MS)
      console.log(`      ${seen.width}x${seen.height}, ${seen.colours} colours`)
      ;[session] = (await api(page, '/sessions')).items.filter((s) => s.state !== 'ended')
      check(session?.state === 'active', `the session is ${session?.state}`)
      await shoot(page, 'officer-desktop-vi')
    }))
  if (!good) return

  const inside = await guest.reachable(session.desktop.id)
  if (!inside) console.log('      the guest cannot be asked from here (virsh); typing is judged by the picture alone')
  await steps.step('officer: types Vietnamese by raw keys, the desktop\'s own Telex writes it', async () => {
    if (inside) await until('the sheet to be there', () => guest.readFile(session.desktop.id, SHEET).then((t) => t.length > 0, () => false), BOOT_MS, 2000)
    await page.locator('[data-testid=screen] canvas').focus()
    // The input method and the editor may come up a little after the picture.
    const end = Date.now() + 120_000
    for (let round = 0; !typed; round += 1) {
      await changedPixels(page)
      await page.keyboard.type(TELEX, { delay: 120 })
      await page.waitForTimeout(3000)
      const changed = await changedPixels(page)
      if (inside) {
        await page.keyboard.press('Control+s')
        await page.waitForTimeout(2500)
        typed = (await guest.readFile(session.desktop.id, SHEET)).normalize('NFC').includes(TYPED)
      } else {
        typed = changed > 250
      }
      if (!typed && Date.now() > end) {
        const text = inside ? await guest.readFile(session.desktop.id, SHEET) : ''
        throw new Error(`round ${round}: ${changed} pixels changed; the sheet says ${JSON.stringify(text.slice(-80))}`)
      }
    }
    await shoot(page, 'officer-typed-vi')
  })

  await steps.step('officer: the line drops, the page says the work is safe, and the same desktop comes back', async () => {
    const tickets = []
    page.on('response', (response) => response.url().endsWith('/ticket') && tickets.push(response.status()))
    await browser.context.setOffline(true)
    await page.getByText('việc của anh/chị vẫn an toàn').waitFor()
    await shoot(page, 'officer-line-lost-vi')
    await page.waitForTimeout(2500)
    await browser.context.setOffline(false)
    await until('the screen to be back', async () => (await viewerPhase(page)) === 'open', 60_000)
    const seen = await waitForScreen(page, COLOURS, 60_000)
    check(tickets.includes(200), `tickets answered ${tickets}`)
    const [again] = (await api(page, '/sessions')).items.filter((s) => s.state !== 'ended')
    check(again.id === session.id && again.desktop.id === session.desktop.id, 'another session or desktop came back')
    check(again.resumes > session.resumes, `resumes ${session.resumes} -> ${again.resumes}`)
    console.log(`      back with ${seen.colours} colours, resumes ${again.resumes}`)
    await shoot(page, 'officer-back-vi')
  })

  await steps.step('officer: a reload of the page comes back to the same desktop too', async () => {
    await page.reload()
    await until('the screen to be back', async () => (await viewerPhase(page)) === 'open', 60_000)
    await waitForScreen(page, COLOURS, 60_000)
    const [again] = (await api(page, '/sessions')).items.filter((s) => s.state !== 'ended')
    check(again.desktop.id === session.desktop.id, 'another desktop came back')
  })

  await steps.step('officer: a spent ticket opens nothing', async () => {
    const codes = await page.evaluate(async () => {
      const me = await (await fetch('/api/v1/me')).json()
      const { items } = await (await fetch('/api/v1/sessions')).json()
      const live = items.find((s) => s.state !== 'ended')
      const answer = await fetch(`/api/v1/sessions/${live.id}/ticket`, { method: 'POST', headers: { 'x-tram-csrf': me.csrf } })
      const { ticket, url: address } = await answer.json()
      const dial = () =>
        new Promise((resolve) => {
          const ws = new WebSocket(address, ['binary', ticket])
          ws.onmessage = () => (ws.close(), resolve('served'))
          ws.onclose = () => resolve('refused')
        })
      return [await dial(), await dial()]
    })
    check(codes.join() === 'served,refused', codes.join())
  })

  await steps.step('officer: narrow window, English', async () => {
    await page.goto(`${url}/console/`)
    await page.getByRole('button', { name: 'Quay lại máy trạm ảo' }).waitFor()
    await page.getByText('English').click()
    await page.getByRole('button', { name: 'Return to my desktop' }).waitFor()
    await page.setViewportSize({ width: 375, height: 720 })
    await shoot(page, 'officer-home-narrow-en')
    await page.setViewportSize({ width: 1280, height: 860 })
    await page.getByText('Tiếng Việt').click()
  })

  await steps.step('officer: ends the session and signs out', async () => {
    await page.getByRole('button', { name: 'Kết thúc phiên' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Kết thúc phiên' }).click()
    await page.getByRole('button', { name: 'Mở máy trạm ảo' }).waitFor()
    await signOut(page)
    const status = await page.evaluate(async () => (await fetch('/api/v1/me')).status)
    check(status === 401, `after signing out /me answers ${status}`)
  })
}

async function operator(page) {
  const name = `chuyen-${Date.now().toString(36)}`
  const good = await steps.step('operator: signs in and sees the whole', async () => {
    await signIn(page, url, accounts.operator)
    await page.getByRole('heading', { level: 1, name: 'Tổng quan' }).waitFor()
    await page.getByText('đang hoạt động').waitFor()
    await shoot(page, 'operator-overview-vi')
  })
  if (!good) return
  await steps.step('operator: a host tells capacity, versions, and KVM or TCG with the reason', async () => {
    await goTo(page, 'Máy chủ ảo hóa')
    const [host] = (await api(page, '/hosts')).items
    const card = page.locator(`[data-host="${host.name}"]`)
    await card.getByText('Hoạt động').waitFor()
    const accel = (await card.getByTestId('accel').innerText()).trim()
    check(/^(TCG|KVM) \(.+\) · .{8,}/.test(accel), `acceleration says: ${accel}`)
    for (const version of [host.libvirt_version, host.hypervisor_version.replace('QEMU ', '')]) {
      check(/^\d+\.\d+/.test(version), `version ${version}`)
      await card.getByText(version).first().waitFor()
    }
    check(host.memory_mib > 256 && host.cpus > 0, 'no capacity')
    console.log(`      ${accel}`)
    await shoot(page, 'operator-hosts-vi')
  })
  await steps.step('operator: images', async () => {
    await goTo(page, 'Bản cài mẫu')
    await page.locator('tbody [data-state=ready]').first().waitFor()
  })
  const made = await steps.step('operator: makes a pool and watches it grow without a reload', async () => {
    await goTo(page, 'Nhóm máy trạm ảo')
    await page.getByRole('button', { name: 'Tạo nhóm' }).click()
    const form = page.getByRole('dialog')
    await form.getByLabel('Tên nhóm').fill(name)
    await form.getByLabel('Đơn vị cấp xã').fill('co loa')
    await page.getByRole('option', { name: /Cổ Loa, Huyện Đông Anh/ }).click()
    await form.getByLabel('Bản cài mẫu').click()
    await page.getByRole('option').first().click()
    await form.getByLabel('Số máy').fill('4')
    await form.getByLabel('Bật máy ngay khi tạo xong').setChecked(false)
    await shoot(page, 'operator-pool-form-vi')
    await form.getByRole('button', { name: 'Tạo nhóm' }).click()
    await page.getByRole('heading', { level: 1, name }).waitFor()
    await page.evaluate(() => (window.notReloaded = true))
    await until('4 of 4', async () => /^4\s*\/\s*4/.test(await page.getByTestId('growth').innerText()), 120_000)
    check(await page.evaluate(() => window.notReloaded), 'the page was reloaded')
    await shoot(page, 'operator-pool-vi')
  })
  if (!made) return
  const row = page.locator('tr', { hasText: name }).first()
  const act = async (item) => {
    await row.getByRole('button', { name: /^Thao tác/ }).click()
    await page.getByRole('menuitem', { name: item, exact: true }).click()
  }
  await steps.step('operator: resizes it', async () => {
    await page.getByRole('button', { name: 'Đổi số máy' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('Số máy').fill('1')
    await dialog.getByText('3 máy trạm ảo sẽ bị xóa').waitFor()
    await dialog.getByRole('button', { name: 'Đổi', exact: true }).click()
    await until('1 of 1', async () => /^1\s*\/\s*1/.test(await page.getByTestId('growth').innerText()), 120_000)
    await until('one row', async () => (await page.locator('tbody tr[data-row]').count()) === 1)
  })
  await steps.step('operator: starts a desktop and sees it come up', async () => {
    await act('Bật máy')
    await row.locator('[data-state=starting],[data-state=booting],[data-state=running]').waitFor({ timeout: 60_000 })
    await row.locator('[data-state=booting],[data-state=running]').waitFor({ timeout: 60_000 })
    await shoot(page, 'operator-starting-vi')
    await row.locator('[data-state=running]').waitFor({ timeout: BOOT_MS })
  })
  await steps.step('operator: sees its screen', async () => {
    await row.getByRole('button').first().click()
    const picture = page.getByRole('img', { name: /Ảnh màn hình/ })
    // The agent answers before the desktop has drawn itself: take new pictures until there is one.
    await until('a picture of a desktop', async () => {
      const colours = await picture.evaluate((img) => {
        if (!img.complete || img.naturalWidth < 300) return 0
        const canvas = Object.assign(document.createElement('canvas'), { width: img.naturalWidth, height: img.naturalHeight })
        const context = canvas.getContext('2d')
        context.drawImage(img, 0, 0)
        return new Set(new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size
      })
      if (colours < COLOURS) await page.getByRole('button', { name: 'Chụp lại' }).click()
      return colours >= COLOURS
    }, 180_000, 3000)
    await shoot(page, 'operator-screen-vi')
    await page.keyboard.press('Escape')
    await page.getByRole('dialog').waitFor({ state: 'detached' })
  })
  await steps.step('operator: resets it, after a question', async () => {
    await act('Khởi động lại cứng')
    await page.getByRole('dialog').getByRole('button', { name: 'Khởi động lại cứng' }).click()
    await row.locator('[data-state=booting],[data-state=starting]').waitFor({ timeout: 60_000 })
  })
  await steps.step('operator: switches it off, after a question', async () => {
    await act('Ngắt điện')
    await page.getByRole('dialog').getByRole('button', { name: 'Ngắt điện' }).click()
    await row.locator('[data-state=stopped]').waitFor({ timeout: 120_000 })
  })
  await steps.step('operator: rebuilds it only after its name is typed', async () => {
    const id = await row.getAttribute('data-row')
    const before = await api(page, `/desktops/${id}`)
    await act('Tạo lại từ bản cài mẫu')
    const dialog = page.getByRole('dialog')
    check(await dialog.getByRole('button', { name: 'Tạo lại' }).isDisabled(), 'the button works at once')
    await dialog.getByLabel(/để xác nhận/).fill(before.name)
    await dialog.getByRole('button', { name: 'Tạo lại' }).click()
    await until('a new generation, at rest', async () => {
      const now = await api(page, `/desktops/${id}`)
      return now.generation > before.generation && ['stopped', 'defined', 'running'].includes(now.state)
    }, 120_000, 500)
  })
  await steps.step('operator: deletes the pool by typing its name; its desktops go', async () => {
    await page.getByRole('button', { name: 'Xóa nhóm' }).click()
    await page.getByRole('dialog').getByLabel(/để xác nhận/).fill(name)
    await page.getByRole('dialog').getByRole('button', { name: 'Xóa nhóm' }).click()
    await until('the pool and its desktops to be gone', async () => {
      const { items } = await api(page, '/pools')
      return !items.some((pool) => pool.name === name)
    }, 120_000, 500)
    await until('the row to leave the list', async () => (await page.getByText(name).count()) === 0, 30_000)
  })
  await steps.step('operator: finds a commune without diacritics, district beside it', async () => {
    await goTo(page, 'Điểm triển khai')
    await page.getByRole('searchbox').fill('minh khai')
    await until('three communes of one name and nothing else', async () => {
      const names = await page.locator('tbody tr[data-row] td:nth-child(1)').allInnerTexts()
      return names.length >= 3 && names.every((text) => text.includes('Minh Khai'))
    })
    const districts = await page.locator('tbody tr[data-row] td:nth-child(2)').allInnerTexts()
    check(new Set(districts).size === districts.length && districts.every((d) => d.length > 3), `districts: ${districts}`)
    await shoot(page, 'operator-sites-vi')
  })
  await steps.step('operator: every one of these acts is in the audit log', async () => {
    await goTo(page, 'Nhật ký kiểm toán')
    await page.locator('tbody tr[data-row]').first().waitFor()
    const { items } = await api(page, '/audit?limit=200')
    const actions = new Set(items.map((entry) => entry.action))
    for (const action of ['pool.create', 'pool.resize', 'pool.delete', 'desktop.start', 'desktop.stop', 'desktop.reset', 'desktop.rebuild']) {
      check(actions.has(action), `${action} is not in the audit log`)
    }
    await shoot(page, 'operator-audit-vi')
  })
  await steps.step('operator: users and endpoints', async () => {
    await goTo(page, 'Người dùng')
    await page.locator('tr', { hasText: accounts.officer.username }).waitFor()
    await goTo(page, 'Thiết bị đầu cuối')
    await shoot(page, 'operator-endpoints-vi')
  })
  await steps.step('operator: English and a narrow window', async () => {
    await goTo(page, 'Máy chủ ảo hóa')
    await page.getByText('English').click()
    await page.getByRole('heading', { level: 1, name: 'Hosts' }).waitFor()
    await shoot(page, 'operator-hosts-en')
    await page.setViewportSize({ width: 375, height: 740 })
    // The side bar slides out of the way.
    await page.waitForTimeout(600)
    const [scroll, client] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth])
    check(scroll <= client, `the page is ${scroll} px wide in ${client}`)
    await shoot(page, 'operator-hosts-narrow-en')
  })
}

async function support(page) {
  const good = await steps.step('support: signs in and sees the endpoint online', async () => {
    await signIn(page, url, accounts.support)
    await page.getByRole('heading', { level: 1, name: 'Sự cố' }).waitFor()
    await goTo(page, 'Thiết bị đầu cuối')
    await page.locator('tbody [data-state=online]').first().waitFor({ timeout: 60_000 })
    await shoot(page, 'support-endpoints-vi')
  })
  if (!good) return
  await steps.step('support: real hardware, network health, and when it was last seen', async () => {
    await page.locator('tr', { has: page.locator('[data-state=online]') }).getByRole('link').first().click()
    await page.getByRole('heading', { level: 2, name: 'Phần cứng' }).waitFor()
    const id = new URL(page.url()).pathname.split('/').pop()
    const endpoint = await until('a snapshot', async () => {
      const seen = await api(page, `/endpoints/${id}`)
      return seen.hardware && seen.vitals && seen.network ? seen : null
    }, 60_000, 1000)
    check(endpoint.hardware.cpus > 0 && endpoint.hardware.memory_mib > 256, `hardware ${JSON.stringify(endpoint.hardware)}`)
    check(endpoint.network.interfaces.length > 0, 'no network interface')
    check(Date.now() - Date.parse(endpoint.last_seen_at) < 80_000, `last seen ${endpoint.last_seen_at}`)
    await page.getByText(endpoint.hardware.cpu_model ?? '—').first().waitFor()
    await page.getByText(endpoint.network.interfaces[0].name).first().waitFor()
    await page.getByText(/(trước|vừa xong) \(\d\d\/\d\d\/\d{4} \d\d:\d\d:\d\d\)/).waitFor()
    await shoot(page, 'support-endpoint-vi')
  })
  await steps.step('support: makes an enrolment code, shown once', async () => {
    await goTo(page, 'Mã đăng ký thiết bị')
    await page.getByRole('button', { name: 'Tạo mã đăng ký' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('Đơn vị cấp xã').fill('co loa')
    await page.getByRole('option', { name: /Cổ Loa/ }).click()
    await dialog.getByRole('button', { name: 'Tạo mã đăng ký' }).click()
    const token = await dialog.getByTestId('token').innerText()
    check(token.length >= 20, `the code is ${token.length} characters long`)
    await dialog.getByRole('button', { name: 'Đóng' }).last().click()
    check(!(await page.content()).includes(token), 'the code is still on the page')
  })
  await steps.step('support: sees sessions, and no administration', async () => {
    await goTo(page, 'Phiên làm việc')
    // The switch itself: it lies, unseen, over its whole label, so a click aimed at the words never counts as theirs.
    await page.getByLabel('Cả phiên đã kết thúc').click({ timeout: 60_000 })
    await page.locator('tbody tr[data-row]').first().waitFor({ timeout: 60_000 })
    await shoot(page, 'support-sessions-vi')
    check((await page.getByRole('navigation').getByRole('link', { name: 'Người dùng' }).count()) === 0, 'user administration is offered')
    const status = await page.evaluate(async () => (await fetch('/api/v1/users')).status)
    check(status === 403, `/users answers ${status} to support`)
  })
  await steps.step('support: narrow window', async () => {
    await page.setViewportSize({ width: 375, height: 740 })
    await page.goto(`${url}/console/endpoints`)
    await page.locator('tbody tr[data-row]').first().waitFor()
    await shoot(page, 'support-endpoints-narrow-vi')
  })
  const agent = Number(process.env.TRAM_AGENT_PID)
  if (!agent) return
  await steps.step('support: sees the silence of a killed agent within 80 s, without a reload', async () => {
    await page.setViewportSize({ width: 1280, height: 860 })
    await page.goto(`${url}/console/endpoints`)
    await page.locator('tbody [data-state=online]').first().waitFor()
    const before = await page.locator('tbody [data-state=silent]').count()
    process.kill(agent, 'SIGKILL')
    await until('one more silent endpoint', async () => (await page.locator('tbody [data-state=silent]').count()) > before, 80_000, 500)
    await shoot(page, 'support-silent-vi')
  })
}

if (wants('officer')) await withBrowser({}, officer)
if (wants('operator')) await withBrowser({}, operator)
if (wants('support')) await withBrowser({}, support)
process.exit(steps.finish())
