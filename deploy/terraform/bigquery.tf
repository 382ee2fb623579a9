resource "google_bigquery_dataset" "catalog" {
  dataset_id            = "coverslip"
  project               = var.project
  location              = var.region
  max_time_travel_hours = "48"
  depends_on            = [google_project_service.used]
}

# The tables that `coverslip index --to bigquery://PROJECT.coverslip` writes to; it makes the views and its own state itself.
resource "google_bigquery_table" "catalog" {
  for_each    = jsondecode(file("${path.module}/tables.json"))
  project     = var.project
  dataset_id  = google_bigquery_dataset.catalog.dataset_id
  table_id    = each.key
  description = each.value.description
  schema      = file("${path.module}/schemas/${each.key}.json")
  clustering  = length(each.value.clustering) > 0 ? each.value.clustering : null

  dynamic "range_partitioning" {
    for_each = each.value.bucket == null ? [] : [each.value.bucket]
    content {
      field = range_partitioning.value
      range {
        start    = 0
        end      = 256
        interval = 1
      }
    }
  }

  # Columns are added as headers bring them.
  lifecycle {
    ignore_changes = [schema]
  }
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
