"""The same training as a SageMaker job, a trained model as a SageMaker endpoint, and a rehearsal of both here.

account, instances         who you are, role, quota, price; GPUs of an instance type, and what the planner says
job_request, job_plan      what is sent and uploaded; what it would cost, and why it is refused
jobs, job_log, clean_up    submit, attach, follow, stop, fetch; the log in CloudWatch; what is left in the account
container                  what runs on the rented machine
endpoint_plan, endpoint    what an endpoint would be; deploy, ask and delete it (delete_endpoint)
rehearsal, pretended_*     jobs on this machine, and the pretended account for them
"""
