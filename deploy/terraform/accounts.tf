# Works on slides: in the job and in the worker.
resource "google_service_account" "converter" {
  project      = var.project
  account_id   = "coverslip-converter"
  display_name = "coverslip: converts slides"
}

# Sends messages to the worker.
resource "google_service_account" "push" {
  project      = var.project
  account_id   = "coverslip-push"
  display_name = "coverslip: pushes messages to the worker"
}

# Fills the tables.
resource "google_service_account" "indexer" {
  project      = var.project
  account_id   = "coverslip-indexer"
  display_name = "coverslip: loads the catalog"
}
