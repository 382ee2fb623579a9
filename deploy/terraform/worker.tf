locals {
  audience = "https://coverslip-worker.${var.project}"

  worker_arguments = [
    "worker",
    "--slides", "gs://${var.source_bucket}",
    "--state", "gs://${google_storage_bucket.state.name}/worker",
    "--to", "gs://${google_storage_bucket.dicom.name}",
    "--also", "healthcare://${var.project}/${var.region}/${google_healthcare_dataset.slides.name}/${google_healthcare_dicom_store.slides.name}",
    "--catalog", "catalog",
    "--work", "/tmp/work",
    "--host", "0.0.0.0",
    "--memory-limit", var.memory_limit,
    "--scratch-limit", var.scratch_limit,
    "--attempts", "5",
    "--max-deliveries", "95",
    "--push-audience", local.audience,
    "--push-account", google_service_account.push.email,
    "--log-format", "json",
  ]
}

resource "google_cloud_run_v2_service" "worker" {
  name                = "coverslip-worker"
  project             = var.project
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_INTERNAL_ONLY"
  custom_audiences    = [local.audience]
  deletion_protection = false
  depends_on          = [google_project_service.used]

  template {
    service_account                  = google_service_account.converter.email
    timeout                          = "3600s"
    max_instance_request_concurrency = 1

    scaling {
      min_instance_count = 0
      max_instance_count = var.instances
    }

    containers {
      image = var.image
      args  = concat(local.worker_arguments, var.conversion_arguments)

      env {
        name  = "GOOGLE_CLOUD_PROJECT"
        value = var.project
      }

      ports {
        container_port = 8080
      }

      resources {
        # A slide goes on when its message is no longer waited for.
        cpu_idle = false
        limits = {
          cpu    = var.cpu
          memory = var.memory
        }
      }

      startup_probe {
        period_seconds    = 5
        failure_threshold = 12
        http_get {
          path = "/ready"
        }
      }

      liveness_probe {
        period_seconds    = 30
        failure_threshold = 3
        http_get {
          path = "/live"
        }
      }
    }
  }
}

resource "google_cloud_run_v2_service_iam_member" "push_invokes_worker" {
  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.worker.name
  role     = "roles/run.invoker"
  member   = google_service_account.push.member
}

resource "google_pubsub_topic" "arrivals" {
  name       = "coverslip-arrivals"
  project    = var.project
  depends_on = [google_project_service.used]
}

resource "google_pubsub_topic" "dead_letters" {
  name       = "coverslip-dead-letters"
  project    = var.project
  depends_on = [google_project_service.used]
}

# Keeps dead letters until somebody has looked at them.
resource "google_pubsub_subscription" "dead_letters" {
  name                       = "coverslip-dead-letters"
  project                    = var.project
  topic                      = google_pubsub_topic.dead_letters.id
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

resource "google_storage_notification" "arrivals" {
  bucket         = var.source_bucket
  topic          = google_pubsub_topic.arrivals.id
  payload_format = "JSON_API_V1"
  event_types    = ["OBJECT_FINALIZE"]
  depends_on     = [google_pubsub_topic_iam_member.storage_publishes_arrivals]
}

resource "google_pubsub_subscription" "worker" {
  name                       = "coverslip-worker"
  project                    = var.project
  topic                      = google_pubsub_topic.arrivals.id
  ack_deadline_seconds       = 600
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  # Deliveries that wait for a slide under way count too; attempts are counted by the worker.
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 100
  }

  push_config {
    push_endpoint = google_cloud_run_v2_service.worker.uri

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = local.audience
    }
  }
}

resource "google_pubsub_topic_iam_member" "storage_publishes_arrivals" {
  project = var.project
  topic   = google_pubsub_topic.arrivals.name
  role    = "roles/pubsub.publisher"
  member  = data.google_storage_project_service_account.storage.member
}

resource "google_pubsub_topic_iam_member" "pubsub_publishes_dead_letters" {
  project = var.project
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_subscription_iam_member" "pubsub_takes_dead_letters" {
  project      = var.project
  subscription = google_pubsub_subscription.worker.name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_service_account_iam_member" "pubsub_signs_for_push" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}
