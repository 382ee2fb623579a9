// Filters take effect when they are chosen; without this script the button does it.
const form = document.getElementById('filters')
form?.classList.add('immediate')
form?.addEventListener('change', () => form.requestSubmit())
// A thumbnail that cannot be made leaves its place empty, with a word.
for (const image of document.querySelectorAll('.picture img')) {
  image.addEventListener('error', () => {
    const text = document.createElement('span')
    text.className = 'no-picture'
    text.textContent = 'no picture'
    image.replaceWith(text)
  })
}
