variable "project" {
  type        = string
  description = "Project that everything lies in."
}

variable "region" {
  type        = string
  description = "Of Cloud Run, buckets, topics, the Healthcare dataset and BigQuery."
  default     = "us-central1"
}

variable "image" {
  type        = string
  description = "The image, by digest: region-docker.pkg.dev/project/repository/coverslip@sha256:..."
  validation {
    condition     = strcontains(var.image, "@sha256:")
    error_message = "An image by digest is wanted, so that all tasks of a run are the same version."
  }
}

variable "source_bucket" {
  type        = string
  description = "Bucket with the slides, which is there already; it is read and never written to."
}

variable "prefix" {
  type        = string
  description = "For the names of buckets, which are world-wide."
}

variable "tasks" {
  type        = number
  description = "Of the job: shards."
  default     = 50
}

variable "tasks_at_once" {
  type        = number
  description = "Of the job."
  default     = 20
}

variable "instances" {
  type        = number
  description = "Of the worker, at most: slides at once."
  default     = 10
}

# Cloud Run's disk is memory: scratch and what processes take must fit together.
variable "cpu" {
  type    = string
  default = "4"
}

variable "memory" {
  type    = string
  default = "16Gi"
}

variable "scratch_limit" {
  type        = string
  description = "Of the memory, for the slide and its series: slides of up to 2.6 times less fit."
  default     = "9G"
}

variable "memory_limit" {
  type        = string
  description = "Of the memory, for processes."
  default     = "5G"
}

variable "conversion_arguments" {
  type        = list(string)
  description = "Further options of coverslip run and coverslip worker, such as --set or --deid, for both alike."
  default     = []
}
