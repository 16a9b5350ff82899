import os

SECRET_KEY = "for a test on a loopback address"
DEBUG = False
ROOT_URLCONF = "reports.urls"
ALLOWED_HOSTS = [os.environ["DOMAIN"]]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
USE_X_FORWARDED_HOST = True
USE_X_FORWARDED_PORT = True
DATA_UPLOAD_MAX_MEMORY_SIZE = None
