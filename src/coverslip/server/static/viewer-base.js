window.PUBLIC_LIB_URL = '/viewer/dynamic-import/'
