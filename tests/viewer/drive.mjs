// node drive.mjs CHROMIUM (PAGE_URL SCREENSHOT_FOLDER)...
// Opens each test page in headless Chromium, shows each level of its slide at its own resolution and takes a screenshot
// of each. Prints a list of {views: [{level, file, column, row, columns, rows}], messages, failed_requests, frames_of}.
// A page that complains is not waited for much longer: it may never be ready, or never have all frames.
import path from 'node:path'
import { chromium } from 'playwright-core'

const [executablePath, ...pages] = process.argv.slice(2)
const browser = await chromium.launch({
  executablePath,
  args: [
    '--headless',
    '--no-sandbox',
    '--no-first-run',
    '--disable-quic',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    // WebGL without a graphics card
    '--use-gl=angle',
    '--use-angle=swiftshader',
    '--enable-unsafe-swiftshader',
  ],
})
const context = await browser.newContext() // one, so that scripts are fetched and compiled once
const show = async (url, folder) => {
  const page = await context.newPage()
  page.setDefaultTimeout(60_000)
  const messages = [] // errors and warnings of the console, and uncaught errors, also those of the decoding workers
  const failedRequests = []
  const framesOf = {} // SOP Instance UID -> frames received
  let complain
  const complaint = new Promise((resolve) => { complain = resolve })
  const note = (message) => { messages.push(message); setTimeout(complain, 300) }
  page.on('console', (message) => {
    const isAboutDriver = message.text().includes('GL Driver Message') // performance hints of some Chromium builds
    if (['error', 'warning'].includes(message.type()) && !isAboutDriver) note(message.text())
  })
  page.on('pageerror', (error) => note(`uncaught: ${error.message}`))
  page.on('requestfailed', (request) => failedRequests.push(`${request.url()}: ${request.failure()?.errorText}`))
  page.on('response', (response) => {
    if (response.status() >= 400) failedRequests.push(`${response.url()}: ${response.status()}`)
    const instance = response.url().match(/instances\/([\d.]+)\/frames\//)?.[1]
    if (instance) framesOf[instance] = (framesOf[instance] ?? 0) + 1
  })

  await page.goto(url)
  const ready = page.waitForFunction(() => window.levels !== undefined).catch((error) => note(error.message))
  await Promise.race([ready, complaint])
  const views = []
  for (const level of await page.evaluate(() => window.levels ?? [])) {
    // No larger than the level: the viewer does not zoom out beyond the whole slide.
    await page.setViewportSize({ width: Math.min(800, level.columns), height: Math.min(600, level.rows) })
    const showing = page
      .evaluate((columns) => window.showLevel(columns), level.columns)
      .catch((error) => note(`level of ${level.columns} columns: ${error.message}`))
    const shown = await Promise.race([showing, complaint])
    const file = path.join(folder, `level-${level.columns}.png`)
    // A busy machine may show a picture some time after it is complete: until two are the same.
    let last = await page.screenshot({ path: file })
    for (let attempt = 0; shown && attempt < 20; attempt++) {
      await page.waitForTimeout(50)
      const picture = await page.screenshot({ path: file })
      if (picture.equals(last)) break
      last = picture
    }
    views.push({ level, file, ...shown }) // without a rectangle when the level could not be shown
  }
  const report = { views, messages: [...messages], failed_requests: failedRequests, frames_of: framesOf }
  await page.close()
  return report
}

try {
  const reports = []
  let next = 0
  const work = async () => {
    for (let i = next++; 2 * i < pages.length; i = next++) reports[i] = await show(pages[2 * i], pages[2 * i + 1])
  }
  await Promise.all([work(), work(), work()]) // pages mostly wait
  console.log(JSON.stringify(reports, null, 2))
} finally {
  await browser.close()
}
