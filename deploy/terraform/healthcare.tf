resource "google_healthcare_dataset" "slides" {
  name       = "coverslip"
  project    = var.project
  location   = var.region
  depends_on = [google_project_service.used]
}

resource "google_healthcare_dicom_store" "slides" {
  name    = "slides"
  dataset = google_healthcare_dataset.slides.id
}

resource "google_healthcare_dicom_store_iam_member" "converter_writes_series" {
  dicom_store_id = google_healthcare_dicom_store.slides.id
  role           = "roles/healthcare.dicomEditor"
  member         = google_service_account.converter.member
}
