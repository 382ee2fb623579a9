// Shows the slide of the page with dicom-microscopy-viewer, and keeps what is shown in the address, to be shared.
const element = document.getElementById('viewer')
const state = document.getElementById('state')
const { study, series } = element.dataset
const spacing = Number(element.dataset.spacing)
const isColor = element.dataset.color === '1'

const say = (text, name) => {
  state.textContent = text
  state.hidden = text === ''
  if (name) element.dataset.state = name
}

const start = async () => {
  const { viewer: viewers, metadata: dicom } = window.dicomMicroscopyViewer
  const client = new window.DICOMwebClient.api.DICOMwebClient({ url: `${location.origin}/dicomweb` })
  const datasets = await client.retrieveSeriesMetadata({ studyInstanceUID: study, seriesInstanceUID: series })
  const images = datasets
    .filter((each) => each['00080008']?.Value?.[2] === 'VOLUME')
    .map((metadata) => new dicom.VLWholeSlideMicroscopyImage({ metadata }))
  if (images.length === 0) throw new Error('the series has no levels of a slide')
  const columns = [...new Set(images.map((image) => image.TotalPixelMatrixColumns))].sort((a, b) => b - a)
  const viewer = new viewers.VolumeImageViewer({
    client,
    metadata: images,
    controls: [],
    // Down to four screen pixels for one of the slide.
    mapViewResolutions: [...columns.map((each) => columns[0] / each).reverse(), 0.5, 0.25],
    errorInterceptor: (error) => say(`Part of the slide cannot be shown: ${error.message ?? error}`, 'error'),
  })
  viewer.render({ container: element })
  const map = viewer.getMap()
  const view = map.getView()
  channels(viewer)
  const whole = () => {
    const [left, bottom, right, top] = view.getProjection().getExtent()
    const turned = Math.abs(Math.sin(view.getRotation())) > 0.5 // the viewer turns a slide by its orientation
    const [across, down] = map.getSize() ?? [800, 600]
    const [width, height] = turned ? [top - bottom, right - left] : [right - left, top - bottom]
    view.setCenter([(left + right) / 2, (bottom + top) / 2])
    view.setResolution(view.getConstrainedResolution(Math.max(width / across, height / down) * 1.03, 1))
  }
  move(view, whole)
  restore(view) || whole()
  map.on('moveend', () => { remember(view); drawScale(view) })
  view.on('change:resolution', () => drawScale(view))
  drawScale(view)
  map.once('rendercomplete', () => { if (element.dataset.state !== 'error') say('', 'ready') })
  // For scripts that look at the page, such as its tests.
  element.view = view
  element.map = map
  element.baseColumns = columns[0]
  map.render()
}

const move = (view, whole) => {
  const zoom = (factor) => view.animate({ resolution: view.getConstrainedResolution(view.getResolution() * factor), duration: 120 })
  const pan = (x, y) => {
    const [left, top] = view.getCenter()
    const step = view.getResolution() * 80
    view.animate({ center: [left + x * step, top + y * step], duration: 80 })
  }
  const actions = { in: () => zoom(0.5), out: () => zoom(2), whole }
  for (const button of document.querySelectorAll('.tools button')) {
    button.addEventListener('click', () => actions[button.dataset.do]())
  }
  const keys = {
    '+': actions.in, '=': actions.in, '-': actions.out, 0: whole,
    ArrowLeft: () => pan(-1, 0), ArrowRight: () => pan(1, 0), ArrowUp: () => pan(0, 1), ArrowDown: () => pan(0, -1),
  }
  element.addEventListener('keydown', (event) => {
    const action = keys[event.key]
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    event.stopPropagation()
    action()
  }, true)
}

// The view: #x,y,resolution in pixels of the base.
const restore = (view) => {
  const numbers = location.hash.slice(1).split(',').map(Number)
  if (numbers.length !== 3 || !numbers.every(Number.isFinite) || numbers[2] <= 0) return false
  view.setCenter([numbers[0], -1 - numbers[1]])
  view.setResolution(numbers[2])
  return true
}

const remember = (view) => {
  const [x, y] = view.getCenter()
  const hash = [x, -1 - y].map((each) => each.toFixed(0)).join(',') + `,${Number(view.getResolution().toPrecision(5))}`
  history.replaceState(null, '', `#${hash}`)
}

const drawScale = (view) => {
  if (!(spacing > 0)) return
  const micrometres = spacing * 1000 * view.getResolution() // of one screen pixel
  const most = micrometres * 140
  const power = 10 ** Math.floor(Math.log10(most))
  const length = [5, 2, 1].map((each) => each * power).find((each) => each <= most)
  document.getElementById('scale-bar').style.width = `${(length / micrometres).toFixed(1)}px`
  document.getElementById('scale-text').textContent = length >= 1000 ? `${length / 1000} mm` : `${Number(length.toPrecision(2))} µm`
}

const channels = (viewer) => {
  if (isColor) return
  const apply = (fieldset) => {
    const part = (name) => fieldset.querySelector(`[data-part=${name}]`)
    const identifier = fieldset.dataset.path
    const [low, high] = [Number(part('low').value), Number(part('high').value)]
    const color = [1, 3, 5].map((at) => parseInt(part('color').value.slice(at, at + 2), 16))
    if (!part('shown').checked) {
      viewer.hideOpticalPath(identifier)
      return
    }
    viewer.activateOpticalPath(identifier)
    if (low < high) viewer.setOpticalPathStyle(identifier, { color, limitValues: [low, high], opacity: 1 })
    viewer.showOpticalPath(identifier)
  }
  for (const fieldset of document.querySelectorAll('.channel')) {
    apply(fieldset)
    fieldset.addEventListener('input', () => apply(fieldset))
  }
}

start().catch((error) => say(`The slide cannot be shown: ${error.message ?? error}`, 'error'))
