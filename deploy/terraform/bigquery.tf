resource "google_bigquery_dataset" "catalog" {
  dataset_id = "coverslip"
  project    = var.project
  location   = var.region
  depends_on = [google_project_service.used]
}

# The schemas are those that `coverslip index --to ndjson:` writes.
resource "google_bigquery_table" "dicom_metadata" {
  project    = var.project
  dataset_id = google_bigquery_dataset.catalog.dataset_id
  table_id   = "dicom_metadata"
  schema     = file("${path.module}/schemas/dicom_metadata.json")
  clustering = ["PatientID", "SeriesInstanceUID"]
}

resource "google_bigquery_table" "instances" {
  project    = var.project
  dataset_id = google_bigquery_dataset.catalog.dataset_id
  table_id   = "instances"
  schema     = file("${path.module}/schemas/instances.json")
  clustering = ["SeriesInstanceUID"]
}

resource "google_bigquery_table" "series" {
  project    = var.project
  dataset_id = google_bigquery_dataset.catalog.dataset_id
  table_id   = "series"
  schema     = file("${path.module}/schemas/series.json")
}

resource "google_bigquery_dataset_iam_member" "indexer_fills_tables" {
  project    = var.project
  dataset_id = google_bigquery_dataset.catalog.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.indexer.member
}

# Loads are jobs, and jobs belong to projects: the only role that is not of one thing alone.
resource "google_project_iam_member" "indexer_starts_jobs" {
  project = var.project
  role    = "roles/bigquery.jobUser"
  member  = google_service_account.indexer.member
}
