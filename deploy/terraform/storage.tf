resource "google_storage_bucket" "dicom" {
  name                        = "${var.prefix}-dicom"
  project                     = var.project
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  depends_on                  = [google_project_service.used]
}

# Ledgers, leases, dead letters and rows for the catalog.
resource "google_storage_bucket" "state" {
  name                        = "${var.prefix}-state"
  project                     = var.project
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  depends_on                  = [google_project_service.used]
}

resource "google_storage_bucket_iam_member" "converter_reads_slides" {
  bucket = var.source_bucket
  role   = "roles/storage.objectViewer"
  member = google_service_account.converter.member
}

# What has arrived with other bytes is removed again, and what a correction replaces too.
resource "google_storage_bucket_iam_member" "converter_writes_dicom" {
  bucket = google_storage_bucket.dicom.name
  role   = "roles/storage.objectUser"
  member = google_service_account.converter.member
}

resource "google_storage_bucket_iam_member" "converter_writes_state" {
  bucket = google_storage_bucket.state.name
  role   = "roles/storage.objectUser"
  member = google_service_account.converter.member
}

resource "google_storage_bucket_iam_member" "indexer_reads_dicom" {
  bucket = google_storage_bucket.dicom.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.indexer.member
}

resource "google_storage_bucket_iam_member" "indexer_reads_state" {
  bucket = google_storage_bucket.state.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.indexer.member
}
