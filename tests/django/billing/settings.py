import os

SECRET_KEY = "for a test on a loopback address"
DEBUG = False
ROOT_URLCONF = "billing.urls"
ALLOWED_HOSTS = [os.environ["DOMAIN"]]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]

# A redirect loop, or a form that is refused, is what comes of a gateway that says it wrong.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
USE_X_FORWARDED_HOST = True
USE_X_FORWARDED_PORT = True
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_PATH = "/billing/"
