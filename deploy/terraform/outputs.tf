output "dicom_url" {
  description = "Where series are."
  value       = "gs://${google_storage_bucket.dicom.name}"
}

output "run_state_url" {
  description = "For coverslip status and coverslip collect, of the job."
  value       = "gs://${google_storage_bucket.state.name}/run"
}

output "worker_state_url" {
  description = "For coverslip status and coverslip collect, of the worker."
  value       = "gs://${google_storage_bucket.state.name}/worker"
}

output "dataset" {
  description = "Of BigQuery."
  value       = google_bigquery_dataset.catalog.dataset_id
}
