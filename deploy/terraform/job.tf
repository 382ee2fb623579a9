locals {
  job_arguments = [
    "run", "gs://${var.source_bucket}",
    "--engine", "shard",
    "--state", "gs://${google_storage_bucket.state.name}/run",
    "--to", "gs://${google_storage_bucket.dicom.name}",
    "--also", "healthcare://${var.project}/${var.region}/${google_healthcare_dataset.slides.name}/${google_healthcare_dicom_store.slides.name}",
    "--catalog", "catalog",
    "--work", "/tmp/work",
    "--memory-limit", var.memory_limit,
    "--scratch-limit", var.scratch_limit,
    "--log-format", "json",
  ]
}

resource "google_cloud_run_v2_job" "run" {
  name                = "coverslip-run"
  project             = var.project
  location            = var.region
  deletion_protection = false
  depends_on          = [google_project_service.used]

  template {
    task_count  = var.tasks
    parallelism = var.tasks_at_once

    template {
      service_account = google_service_account.converter.email
      max_retries     = 3
      timeout         = "86400s"

      containers {
        image = var.image
        args  = concat(local.job_arguments, var.conversion_arguments)

        env {
          name  = "GOOGLE_CLOUD_PROJECT"
          value = var.project
        }

        resources {
          limits = {
            cpu    = var.cpu
            memory = var.memory
          }
        }
      }
    }
  }
}
