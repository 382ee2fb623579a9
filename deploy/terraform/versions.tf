terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 8.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

data "google_project" "this" {
  project_id = var.project
}

# The account by which Cloud Storage itself writes messages.
data "google_storage_project_service_account" "storage" {
  project = var.project
}

resource "google_project_service" "used" {
  for_each = toset([
    "bigquery.googleapis.com",
    "healthcare.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "storage.googleapis.com",
  ])
  project            = var.project
  service            = each.value
  disable_on_destroy = false
}
