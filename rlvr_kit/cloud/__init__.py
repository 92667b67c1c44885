"""The same training as a SageMaker job, and a rehearsal of it on this machine.

account, instances         who you are, role, quota, price; GPUs of an instance type, and what the planner says
job_request, job_plan      what is sent and uploaded; what it would take, and why it is refused
jobs, job_log, clean_up    submit, attach, follow, stop, fetch; the log in CloudWatch; what is left in the account
container                  what runs on the rented machine
rehearsal, pretended_aws   a job on this machine; the pretended account for it
"""
